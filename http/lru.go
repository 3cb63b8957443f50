package http

// lru is a map that keeps the most recently used entries, at most a fixed number. It is not safe for concurrent use.
type lru[K comparable, V any] struct {
	entries []lruEntry[K, V] // entries[0] is the root of the ring: next is the newest, prev the oldest
	at      map[K]int32
	max     int
}

type lruEntry[K comparable, V any] struct {
	key        K
	value      V
	prev, next int32
}

func newLRU[K comparable, V any](entriesMax int) *lru[K, V] {
	return &lru[K, V]{entries: make([]lruEntry[K, V], 1), at: make(map[K]int32), max: entriesMax}
}

// get returns the value of a key, or nil, and makes it the most recently used. The pointer is valid until the next put.
func (l *lru[K, V]) get(key K) *V {
	i, found := l.at[key]
	if !found {
		return nil
	}
	l.unlink(i)
	l.linkNewest(i)
	return &l.entries[i].value
}

// has reports whether there is a value for a key, and changes nothing.
func (l *lru[K, V]) has(key K) bool {
	_, found := l.at[key]
	return found
}

// put sets the value of a key and makes it the most recently used. The entry that was used least recently gives way.
// The pointer is valid until the next put.
func (l *lru[K, V]) put(key K, value V) *V {
	if old := l.get(key); old != nil {
		*old = value
		return old
	}
	var i int32
	if len(l.entries) > l.max {
		i = l.entries[0].prev
		l.unlink(i)
		delete(l.at, l.entries[i].key)
	} else {
		i = int32(len(l.entries))
		l.entries = append(l.entries, lruEntry[K, V]{})
	}
	l.entries[i].key, l.entries[i].value = key, value
	l.at[key] = i
	l.linkNewest(i)
	return &l.entries[i].value
}

func (l *lru[K, V]) unlink(i int32) {
	e := &l.entries[i]
	l.entries[e.prev].next = e.next
	l.entries[e.next].prev = e.prev
}

func (l *lru[K, V]) linkNewest(i int32) {
	newest := l.entries[0].next
	l.entries[i].prev, l.entries[i].next = 0, newest
	l.entries[0].next = i
	l.entries[newest].prev = i
}
