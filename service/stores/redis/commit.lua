-- Change a session if it is as expected. 1: done; 0: it is not, and nothing was changed.
-- KEYS: the session, the identity of its bucket.
-- ARGV: the identity that the caller knows; the expected stamp, empty for absent; the new bytes,
-- empty to end the session; how many milliseconds to keep them, empty for ever.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
    return redis.error_reply('LSTMLOST this is not the store that it was')
end
if ARGV[2] == '' then
    if redis.call('EXISTS', KEYS[1]) == 1 then
        return 0
    end
-- From the first to the last byte of service.stores.codec.STAMP. A key of another type gives an
-- error, which is no stamp either.
elseif redis.pcall('GETRANGE', KEYS[1], 8, 31) ~= ARGV[2] then
    return 0
end
if ARGV[3] == '' then
    redis.call('DEL', KEYS[1])
elseif ARGV[4] == '' then
    redis.call('SET', KEYS[1], ARGV[3])
else
    redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
end
return 1
