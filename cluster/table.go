package cluster

import "sync"

// tableShards spreads the locks of a table; a power of two.
const tableShards = 64

// table maps keys to values, for many readers. Callers pass the key's hash, which they have anyway.
type table[V any] struct {
	shards [tableShards]struct {
		sync.RWMutex
		values map[key]V
	}
}

func newTable[V any]() *table[V] {
	t := &table[V]{}
	for i := range t.shards {
		t.shards[i].values = make(map[key]V)
	}
	return t
}

func (t *table[V]) load(hash uint64, k key) (V, bool) {
	s := &t.shards[hash%tableShards]
	s.RLock()
	defer s.RUnlock()
	v, ok := s.values[k]
	return v, ok
}

// loadOrStore returns the value present and true, or stores v and returns it and false.
func (t *table[V]) loadOrStore(hash uint64, k key, v V) (V, bool) {
	s := &t.shards[hash%tableShards]
	s.Lock()
	defer s.Unlock()
	if present, ok := s.values[k]; ok {
		return present, true
	}
	s.values[k] = v
	return v, false
}

// store sets the value. A shard that has max values already drops one of them, whichever.
func (t *table[V]) store(hash uint64, k key, v V, max int) {
	s := &t.shards[hash%tableShards]
	s.Lock()
	defer s.Unlock()
	if _, ok := s.values[k]; !ok && len(s.values) >= max {
		for victim := range s.values {
			delete(s.values, victim)
			break
		}
	}
	s.values[k] = v
}

// deleteIf removes the value when is accepts it.
func (t *table[V]) deleteIf(hash uint64, k key, is func(V) bool) {
	s := &t.shards[hash%tableShards]
	s.Lock()
	defer s.Unlock()
	if v, ok := s.values[k]; ok && is(v) {
		delete(s.values, k)
	}
}

// all returns the values, shard by shard.
func (t *table[V]) all() []V {
	var list []V
	for i := range t.shards {
		s := &t.shards[i]
		s.RLock()
		for _, v := range s.values {
			list = append(list, v)
		}
		s.RUnlock()
	}
	return list
}
