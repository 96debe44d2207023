-- Do what commits need, so that whatever would refuse them refuses this: write what is there anyway.
-- KEYS: the identity of a bucket. ARGV: the identity that the caller knows.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return redis.error_reply('LSTMLOST this is not the store that it was')
end
redis.call('SET', KEYS[1], ARGV[1])
return 1
