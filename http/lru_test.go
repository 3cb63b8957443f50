package http

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func (l *lru[K, V]) len() int { return len(l.at) }

// TestLRU compares with the dumb alternative: a list in the order of use.
func TestLRU(t *testing.T) {
	type pair struct{ key, value int }
	rapid.Check(t, func(t *rapid.T) {
		entriesMax := rapid.IntRange(1, 6).Draw(t, "max")
		cache := newLRU[int, int](entriesMax)
		var model []pair // the oldest first
		find := func(key int) int { return slices.IndexFunc(model, func(p pair) bool { return p.key == key }) }
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			key := rapid.IntRange(0, 9).Draw(t, "key")
			i := find(key)
			if cache.has(key) != (i >= 0) {
				t.Fatalf("has(%d) is %v, model %v", key, cache.has(key), model)
			}
			if rapid.Bool().Draw(t, "put") {
				value := rapid.Int().Draw(t, "value")
				if i >= 0 {
					model = slices.Delete(model, i, i+1)
				} else if len(model) == entriesMax {
					model = model[1:]
				}
				model = append(model, pair{key, value})
				if got := cache.put(key, value); *got != value {
					t.Fatalf("put(%d, %d) gives %d", key, value, *got)
				}
			} else {
				got := cache.get(key)
				if (got != nil) != (i >= 0) || got != nil && *got != model[i].value {
					t.Fatalf("get(%d) is %v, model %v", key, got, model)
				}
				if i >= 0 {
					model = append(slices.Delete(model, i, i+1), pair{key, *got})
				}
			}
			if cache.len() != len(model) || cache.len() > entriesMax {
				t.Fatalf("len is %d, model %v", cache.len(), model)
			}
		}
	})
}
