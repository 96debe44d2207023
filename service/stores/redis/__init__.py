"""Sessions in Redis or Redis Cluster, shared by all replicas of the service."""

from service.stores.redis.store import RedisStore

__all__ = ["RedisStore"]
