package store

import (
	"errors"
	"testing"

	"github.com/evently/evently"
	"github.com/evently/evently/store/storetest"
)

// A server that takes no more connections still answers on those that there are. Only the journal, which connects when it has
// something to write, can tell.
func TestJournal_KnowsWhetherItGetsConnections(t *testing.T) {
	b := newBench(t, JournalConfig{Writers: 1})
	o := b.acquire(b.event(5))
	url := b.pool.Config().ConnString()
	execAt(t, url, "create role crowded login connection limit 0")
	defer execAt(t, url, "drop role crowded")
	execAt(t, url, "grant select, insert, update on all tables in schema public to crowded")
	defer execAt(t, url, "drop owned by crowded")
	b.journal.writers[0].connect.User = "crowded"
	if err := b.journal.Check(t.Context()); err != nil || !b.journal.FailingSince().IsZero() {
		t.Errorf("nothing was to be written yet: %v, failing since %v", err, b.journal.FailingSince())
	}

	o.book(evently.Item{Quantity: 1})
	batch, outcome := o.Take()
	if err := b.journal.Append(batch); err != nil {
		t.Fatal(err)
	}
	if err := storetest.Await(t, outcome); !errors.Is(err, evently.ErrNotWritten) {
		t.Errorf("got %v, want %v", err, evently.ErrNotWritten)
	}
	since := b.journal.FailingSince()
	if err := b.journal.Check(t.Context()); !errors.Is(err, evently.ErrUnavailable) || since.IsZero() || b.journal.FailingSince() != since {
		t.Errorf("check: %v, want %v; failing since %v, then %v", err, evently.ErrUnavailable, since, b.journal.FailingSince())
	}
	if err := b.pool.Ping(t.Context()); err != nil {
		t.Errorf("the pool: %v: the test shows nothing", err)
	}

	if _, err := b.pool.Exec(t.Context(), "alter role crowded connection limit -1"); err != nil {
		t.Fatal(err)
	}
	if err := b.journal.Check(t.Context()); err != nil || !b.journal.FailingSince().IsZero() {
		t.Errorf("connections are taken again: %v, failing since %v", err, b.journal.FailingSince())
	}
}
