package store

import (
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/evently/evently"
	"github.com/evently/evently/store/pgtest"
	"github.com/evently/evently/store/storetest"
)

func openPool(t testing.TB, url string, size int32) *pgxpool.Pool {
	t.Helper()
	pool, err := Open(t.Context(), url, PoolOptions{MaxConns: size})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// onEveryDatabase tests with the schema of this program, with that of a later one that nodes of both versions share, and without
// prepared statements.
func onEveryDatabase(t *testing.T, run func(t *testing.T, database func(t *testing.T) (url string))) {
	t.Parallel()
	t.Run("own", func(t *testing.T) {
		t.Parallel()
		run(t, func(t *testing.T) string { return pgtest.Database(t) })
	})
	t.Run("one ahead", func(t *testing.T) {
		t.Parallel()
		run(t, func(t *testing.T) string {
			url := pgtest.Database(t)
			expand(t, url)
			return url
		})
	})
	t.Run("behind a pooler that forbids prepared statements", func(t *testing.T) {
		t.Parallel()
		run(t, func(t *testing.T) string { return with(pgtest.Database(t), "default_query_exec_mode=exec") })
	})
}

func TestCatalogue_Conforms(t *testing.T) {
	onEveryDatabase(t, func(t *testing.T, database func(*testing.T) string) {
		storetest.RunCatalogue(t, func(t *testing.T) (evently.Catalogue, evently.Journal) {
			b := benchOn(t, openPool(t, database(t), 8), JournalConfig{})
			return b.events, b.journal
		})
	})
}

func TestJournal_Conforms(t *testing.T) {
	onEveryDatabase(t, func(t *testing.T, database func(*testing.T) string) {
		storetest.RunJournal(t, func(t *testing.T) (evently.Catalogue, evently.Journal, evently.Journal, func() int) {
			return journalsOn(t, database(t))
		})
	})
}

// journalsOn returns the journals of two nodes.
func journalsOn(t *testing.T, url string) (evently.Catalogue, evently.Journal, evently.Journal, func() int) {
	t.Helper()
	b := benchOn(t, openPool(t, url, 8), JournalConfig{})
	t.Cleanup(b.verify)
	other := benchOn(t, openPool(t, url, 8), JournalConfig{})
	return b.events, b.journal, other.journal, func() int { return b.count("select count(*) from reservations") }
}

func TestHistory_Conforms(t *testing.T) {
	onEveryDatabase(t, func(t *testing.T, database func(*testing.T) string) {
		storetest.RunHistory(t, func(t *testing.T) (evently.Catalogue, evently.Journal, evently.History) {
			b := benchOn(t, openPool(t, database(t), 8), JournalConfig{})
			return b.events, b.journal, NewHistory(b.pool)
		})
	})
}

func TestWaitlists_Conforms(t *testing.T) {
	onEveryDatabase(t, func(t *testing.T, database func(*testing.T) string) {
		storetest.RunWaitlists(t, func(t *testing.T) (evently.Catalogue, evently.Journal, evently.Waitlists) {
			b := benchOn(t, openPool(t, database(t), 8), JournalConfig{})
			t.Cleanup(b.verify)
			return b.events, b.journal, NewWaitlists(b.pool)
		})
	})
}

func TestAccounts_Conforms(t *testing.T) {
	onEveryDatabase(t, func(t *testing.T, database func(*testing.T) string) {
		storetest.RunAccounts(t, func(t *testing.T) (evently.Accounts, func() []evently.CodeMail) {
			mail := new(codeMails)
			return NewAccounts(openPool(t, database(t), 16), mail), mail.all
		})
	})
}

func TestAnswers_Conforms(t *testing.T) {
	onEveryDatabase(t, func(t *testing.T, database func(*testing.T) string) {
		storetest.RunAnswers(t, func(t *testing.T) (one, other evently.Answers) {
			url := database(t)
			return NewAnswers(openPool(t, url, 6)), NewAnswers(openPool(t, url, 6))
		})
	})
}
