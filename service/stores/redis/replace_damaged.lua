-- Put a session in the place of bytes that are none, and keep those aside. Replies as commit.lua.
-- KEYS: the session, the identity of its bucket, where to keep the bytes.
-- ARGV: the identity that the caller knows; the bytes, whole, as load.lua gave them; and as for
-- commit.lua the new bytes and how long to keep them.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
    return redis.error_reply('LSTMLOST this is not the store that it was')
end
local actual = redis.pcall('GET', KEYS[1])
if type(actual) == 'table' then
    actual = redis.call('DUMP', KEYS[1])
end
if actual ~= ARGV[2] then
    return 0
end
-- First of all, because a server without memory refuses the SET only before the first write.
if ARGV[3] ~= '' then
    redis.call('SET', KEYS[3], '')
end
redis.call('RENAME', KEYS[1], KEYS[3])
redis.call('PERSIST', KEYS[3])
if ARGV[3] ~= '' then
    if ARGV[4] == '' then
        redis.call('SET', KEYS[1], ARGV[3])
    else
        redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
    end
end
return 1
