-- Return what is kept for a session: its bytes, nil, or a dump of whatever is no string.
-- KEYS: the session, the identity of its bucket. ARGV: the identity that the caller knows.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
    return redis.error_reply('LSTMLOST this is not the store that it was')
end
local value = redis.pcall('GET', KEYS[1])
if type(value) == 'table' then
    return redis.call('DUMP', KEYS[1])
end
return value
