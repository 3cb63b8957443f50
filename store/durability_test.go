package store

import (
	"errors"
	"testing"

	"github.com/evently/evently/store/embedded"
	"github.com/evently/evently/store/pgtest"
)

func TestCheckDurability(t *testing.T) {
	durable := pgtest.Private(t, func(c *embedded.Config) { c.UnsafeNoFsync = false })
	if err := CheckDurability(t.Context(), openPool(t, durable.DSN(), 4)); err != nil {
		t.Errorf("durable server: %v", err)
	}
	var found *DurabilityError
	if err := CheckDurability(t.Context(), openPool(t, pgtest.Database(t), 4)); !errors.As(err, &found) || len(found.Settings) != 2 {
		t.Errorf("server without fsync: %v", err)
	}
	pool := openPool(t, durable.DSN(), 4)
	if _, err := pool.Exec(t.Context(), "alter role current_user set synchronous_commit = off"); err != nil {
		t.Fatal(err)
	}
	if err := CheckDurability(t.Context(), openPool(t, durable.DSN(), 4)); !errors.As(err, &found) || len(found.Settings) != 1 {
		t.Errorf("role without synchronous commit: %v", err)
	}
}
