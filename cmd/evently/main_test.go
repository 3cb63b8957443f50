package main

import (
	"context"
	"flag"
	"log/slog"
	"testing"

	"go.uber.org/goleak"

	"github.com/evently/evently/cmd/evently/proctest"
	"github.com/evently/evently/store"
	"github.com/evently/evently/store/pgtest"
)

func TestMain(m *testing.M) {
	// Tests of whole programs mostly wait: more of them at a time than there are cores. What -parallel says goes before.
	if err := flag.Set("test.parallel", "3"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(proctest.Wrap(pgtest.Wrap(m, func(ctx context.Context, dsn string) error {
		return store.Migrate(ctx, dsn, slog.New(slog.DiscardHandler))
	})))
}
