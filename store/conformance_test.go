package store

import (
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/evently/evently"
	"github.com/evently/evently/store/pgtest"
	"github.com/evently/evently/store/storetest"
)

func openPool(t *testing.T, url string, size int32) *pgxpool.Pool {
	t.Helper()
	pool, err := Open(t.Context(), url, PoolOptions{MaxConns: size})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func TestCatalogue_Conforms(t *testing.T) {
	storetest.RunCatalogue(t, func(t *testing.T) (evently.Catalogue, evently.Journal) {
		b := newBench(t, JournalConfig{})
		return b.events, b.journal
	})
}

func TestJournal_Conforms(t *testing.T) {
	storetest.RunJournal(t, func(t *testing.T) (evently.Catalogue, evently.Journal, func() int) {
		b := newBench(t, JournalConfig{})
		t.Cleanup(b.verify)
		return b.events, b.journal, func() int { return b.count("select count(*) from reservations") }
	})
}

func TestHistory_Conforms(t *testing.T) {
	storetest.RunHistory(t, func(t *testing.T) (evently.Catalogue, evently.Journal, evently.History) {
		b := newBench(t, JournalConfig{})
		return b.events, b.journal, NewHistory(b.pool)
	})
}

func TestAccounts_Conforms(t *testing.T) {
	storetest.RunAccounts(t, func(t *testing.T) evently.Accounts {
		return NewAccounts(openPool(t, pgtest.Database(t), 16))
	})
}

func TestAnswers_Conforms(t *testing.T) {
	storetest.RunAnswers(t, func(t *testing.T) (one, other evently.Answers) {
		url := pgtest.Database(t)
		return NewAnswers(openPool(t, url, 6)), NewAnswers(openPool(t, url, 6))
	})
}
