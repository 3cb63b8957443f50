package store

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"testing"

	"go.uber.org/goleak"

	"github.com/evently/evently/store/pgtest"
)

// parallelMin is how many of the parallel tests run at once, however few processors there are.
const parallelMin = 4

func TestMain(m *testing.M) {
	// Those that are parallel mostly wait; what keeps the processors busy is not. What -parallel says goes before.
	if err := flag.Set("test.parallel", fmt.Sprint(max(parallelMin, runtime.GOMAXPROCS(0)))); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(pgtest.Wrap(m, func(ctx context.Context, dsn string) error {
		return Migrate(ctx, dsn, slog.New(slog.DiscardHandler))
	}))
}
