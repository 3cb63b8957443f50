package store

import (
	"log/slog"
	"testing"

	"github.com/evently/evently/store/pgtest"
)

func TestInstallation_TellsDatabasesApart(t *testing.T) {
	ids := make(map[string]bool)
	for range 2 {
		url := pgtest.Private(t).DSN()
		if err := Migrate(t.Context(), url, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		pool := openPool(t, url, 4)
		for range 2 {
			id, err := Installation(t.Context(), pool)
			if err != nil {
				t.Fatal(err)
			}
			ids[id] = true
		}
	}
	if len(ids) != 2 {
		t.Errorf("ids of two databases, asked twice each: %v", ids)
	}
}
