package cluster

import (
	"fmt"
	"testing"
)

func TestTable_StoreForgetsOneWhenAShardIsFull(t *testing.T) {
	const shardMax = 3
	table := newTable[int]()
	for i := range 10 {
		table.store(0, key{identity: fmt.Sprint(i)}, i, shardMax)
		if v, ok := table.load(0, key{identity: fmt.Sprint(i)}); !ok || v != i {
			t.Errorf("stored %d, loaded %d, %v", i, v, ok)
		}
		if n := len(table.all()); n != min(i+1, shardMax) {
			t.Errorf("%d values after %d stores", n, i+1)
		}
	}
	kept := table.all()[0]
	table.store(0, key{identity: fmt.Sprint(kept)}, -1, shardMax)
	if n := len(table.all()); n != shardMax {
		t.Errorf("%d values after one was replaced", n)
	}
}

func TestTable_DeleteIf(t *testing.T) {
	table := newTable[int]()
	k := key{"event", "a"}
	if v, present := table.loadOrStore(k.hash(), k, 1); v != 1 || present {
		t.Errorf("got %d, %v", v, present)
	}
	if v, present := table.loadOrStore(k.hash(), k, 2); v != 1 || !present {
		t.Errorf("got %d, %v, want the first", v, present)
	}
	table.deleteIf(k.hash(), k, func(v int) bool { return v == 2 })
	if _, ok := table.load(k.hash(), k); !ok {
		t.Error("another value was deleted")
	}
	table.deleteIf(k.hash(), k, func(v int) bool { return v == 1 })
	if _, ok := table.load(k.hash(), k); ok {
		t.Error("the value was not deleted")
	}
}
