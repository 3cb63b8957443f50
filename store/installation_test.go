package store

import (
	"testing"

	"github.com/evently/evently/store/pgtest"
)

// The databases of tests are copies of one.
func TestInstallation_TellsDatabasesAndTheirCopiesApart(t *testing.T) {
	ids := make(map[string]bool)
	for range 2 {
		pool := openPool(t, pgtest.Database(t), 4)
		for range 2 {
			id, err := Installation(t.Context(), pool)
			if err != nil || len(id) != 32 {
				t.Fatalf("got %q, %v", id, err)
			}
			ids[id] = true
		}
	}
	if len(ids) != 2 {
		t.Errorf("ids of two databases, asked twice each: %v", ids)
	}
}
