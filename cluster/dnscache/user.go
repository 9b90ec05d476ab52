package dnscache

import "sync"

// User is a piece of configuration that uses a cache: it acquires the cache when that is first needed, so
// that what was only compiled leaves nothing behind.
type User struct {
	set  *Caches
	conf *Config

	mu    sync.Mutex // guards below
	cache *Cache
	gone  bool
}

// NewUser makes the user of a cache that Check has allowed.
func NewUser(set *Caches, conf *Config) *User { return &User{set: set, conf: conf} }

// Cache returns the cache. After Retire it may have closed, and know nothing.
func (u *User) Cache() *Cache {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.cache == nil {
		u.cache = u.set.Acquire(u.conf)
		if u.gone {
			u.cache.Release()
		}
	}
	return u.cache
}

// Retire lets go of the cache.
func (u *User) Retire() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.cache != nil && !u.gone {
		u.cache.Release()
	}
	u.gone = true
}
