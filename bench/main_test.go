package bench

import (
	"context"
	"log/slog"
	"testing"

	"go.uber.org/goleak"

	"github.com/evently/evently/cmd/evently/proctest"
	"github.com/evently/evently/store"
	"github.com/evently/evently/store/pgtest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(proctest.Wrap(pgtest.Wrap(m, func(ctx context.Context, dsn string) error {
		return store.Migrate(ctx, dsn, slog.New(slog.DiscardHandler))
	})))
}
