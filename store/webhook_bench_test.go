package store

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/evently/evently"
	"github.com/evently/evently/store/pgtest"
)

// What a step of the feed costs for webhooks nobody has: the price that every installation pays. A transaction is in it.
func BenchmarkWebhooks_StepWithoutWebhooks(b *testing.B) {
	pool, err := pgxpool.New(b.Context(), pgtest.Database(b))
	if err != nil {
		b.Fatal(err)
	}
	defer pool.Close()
	for _, events := range []int{1, 100, 500} {
		b.Run(fmt.Sprintf("events=%d", events), func(b *testing.B) {
			spans := make([]Span, events)
			for i := range spans {
				spans[i] = Span{evently.EventID(i + 1), 0, 1}
			}
			for b.Loop() {
				if err := pgx.BeginFunc(b.Context(), pool, func(tx pgx.Tx) error {
					return queueWebhooks(b.Context(), tx, spans, time.Now())
				}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
