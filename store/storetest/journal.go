package storetest

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/evently/evently"
)

// RunJournal tests a Journal. open returns two on the same storage, as two nodes have them. count returns the reservations
// that storage has in all.
func RunJournal(t *testing.T, open func(t *testing.T) (catalogue evently.Catalogue, one, other evently.Journal, count func() int)) {
	for name, test := range map[string]func(*journalTest){
		"UnknownEventIsNotFound":             unknownEventIsNotFound,
		"LoadedLedgerEqualsTheOneThatWrote":  loadedLedgerEqualsTheOneThatWrote,
		"SupersededOwnerWritesNothing":       supersededOwnerWritesNothing,
		"BatchOutOfPlaceIsFenced":            batchOutOfPlaceIsFenced,
		"StorageRefusesWhatALedgerMustNotDo": storageRefusesWhatALedgerMustNotDo,
		"OwnersOfManyEventsWriteAtOnce":      ownersOfManyEventsWriteAtOnce,
		"NodesOwnAnEventInTurn":              nodesOwnAnEventInTurn,
		"OfConcurrentOwnersTheLastOneWrites": ofConcurrentOwnersTheLastOneWrites,
		"WaitersAreServedAcrossOwners":       waitersAreServedAcrossOwners,
		"WaiterChangesSeveralTimesInABatch":  waiterChangesSeveralTimesInABatch,
		"SupersededOwnerChangesNoWaiter":     supersededOwnerChangesNoWaiter,
		"StorageRefusesWrongWaiters":         storageRefusesWrongWaiters,
		"PricesAndLimitsAreLoaded":           pricesAndLimitsAreLoaded,
		"LoadedLedgerEqualsRandomPlay":       loadedLedgerEqualsRandomPlay,
	} {
		t.Run(name, func(t *testing.T) {
			j := &journalTest{T: t}
			j.catalogue, j.journal, j.other, j.count = open(t)
			test(j)
		})
	}
}

type journalTest struct {
	*testing.T
	catalogue evently.Catalogue
	journal   evently.Journal
	other     evently.Journal // of another node
	count     func() int
}

// office opens one for a new event with tiers of these capacities.
func (j *journalTest) office(capacities ...int) *Office {
	j.Helper()
	return OpenOffice(j.T, j.journal, create(j.T, j.catalogue, newEvent(capacities...)).ID)
}

var oneSeat = evently.Item{Quantity: 1}

func unknownEventIsNotFound(t *journalTest) {
	if _, err := t.journal.Acquire(t.Context(), 42); !errors.Is(err, evently.ErrEventNotFound) {
		t.Errorf("got %v, want %v", err, evently.ErrEventNotFound)
	}
}

func loadedLedgerEqualsTheOneThatWrote(t *journalTest) {
	o := t.office(50, 20)
	two, box := evently.Item{Quantity: 2}, evently.Item{Tier: 1, Quantity: 1}
	// Rows that change several times in one batch, and then again over several batches.
	var tokens []evently.Token
	for range 2 {
		held := o.Book(7, o.Now, two)
		confirmed := o.Book(7, o.Now, two, box)
		o.Decide(&evently.Confirm{User: 7, Token: confirmed.ID.Token}, o.Now.Add(time.Second))
		cancelled := o.Book(7, o.Now, box)
		o.Decide(&evently.Confirm{User: 7, Token: cancelled.ID.Token}, o.Now.Add(time.Second))
		o.Decide(&evently.Cancel{User: 7, Token: cancelled.ID.Token}, o.Now.Add(2*time.Second))
		released := o.Book(7, o.Now, two)
		o.Decide(&evently.Release{User: 7, Token: released.ID.Token}, o.Now.Add(2*time.Second))
		o.MustFlush()
		tokens = append(tokens, held.ID.Token, confirmed.ID.Token, cancelled.ID.Token, released.ID.Token)
	}
	late := o.book(7, o.Now, two)
	tokens = append(tokens, late.ID.Token)
	o.do(o.Now.Add(3*time.Second), &evently.Confirm{User: 7, Token: late.ID.Token})
	o.do(o.Now.Add(20*time.Minute), &evently.Expire{})
	details := o.Ledger.Event().EventDetails
	details.Name, details.SalesStartAt = "Concert, again", o.Now.Truncate(time.Millisecond)
	o.do(o.Now, &evently.Revise{Version: 1, Details: details})

	loaded := OpenOffice(t.T, t.journal, o.Ledger.Event().ID)
	if loaded.Epoch != o.Epoch+1 || loaded.Owner == o.Owner {
		t.Errorf("epoch %d owner %x after epoch %d owner %x", loaded.Epoch, loaded.Owner, o.Epoch, o.Owner)
	}
	for _, token := range tokens {
		wrote, _ := o.Ledger.Reservation(token)
		got, found := loaded.Ledger.Reservation(token)
		if diff := cmp.Diff(wrote, got, compared); !found || diff != "" {
			t.Errorf("reservation %s found=%v (-wrote +loaded):\n%s", wrote.ID, found, diff)
		}
	}
	if diff := cmp.Diff(summarize(o.Ledger), summarize(loaded.Ledger), compared); diff != "" {
		t.Errorf("ledger (-wrote +loaded):\n%s", diff)
	}
}

func supersededOwnerWritesNothing(t *journalTest) {
	old := t.office(10)
	fresh := OpenOffice(t.T, t.journal, old.Ledger.Event().ID)
	if err := old.Flush(); !errors.Is(err, evently.ErrFenced) {
		t.Errorf("fence read: got %v, want %v", err, evently.ErrFenced)
	}
	old.Book(7, old.Now, oneSeat)
	if err := old.Flush(); !errors.Is(err, evently.ErrFenced) || t.count() != 0 {
		t.Errorf("write: got %v with %d reservations, want %v", err, t.count(), evently.ErrFenced)
	}
	if err := fresh.Flush(); err != nil {
		t.Errorf("fence read of the owner: %v", err)
	}
	fresh.book(7, fresh.Now, oneSeat)
}

// The epoch alone is not enough: owner and seq must be as expected, too.
func batchOutOfPlaceIsFenced(t *journalTest) {
	for name, move := range map[string]func(*evently.Batch){
		"earlier epoch": func(b *evently.Batch) { b.Epoch-- },
		"later epoch":   func(b *evently.Batch) { b.Epoch++ },
		"other owner":   func(b *evently.Batch) { b.Owner[0]++ },
		"earlier seq":   func(b *evently.Batch) { b.PrevSeq-- },
		"later seq":     func(b *evently.Batch) { b.PrevSeq++ },
	} {
		o := t.office(10)
		for _, entries := range []int{0, 1} {
			if entries == 1 {
				o.Book(7, o.Now, oneSeat)
			}
			batch, outcome := o.Take()
			move(batch)
			if err := o.Append(batch, outcome); !errors.Is(err, evently.ErrFenced) {
				t.Errorf("%s, %d entries: got %v, want %v", name, entries, err, evently.ErrFenced)
			}
		}
	}
	if n := t.count(); n != 0 {
		t.Errorf("%d reservations written", n)
	}
}

func storageRefusesWhatALedgerMustNotDo(t *journalTest) {
	for name, damage := range map[string]func(o *Office, b *evently.Batch){
		"one key twice": func(_ *Office, b *evently.Batch) {
			again := b.Entries[0]
			again.Seq++
			again.Token++
			b.Entries = append(b.Entries, again)
		},
		"one token twice": func(_ *Office, b *evently.Batch) {
			again := b.Entries[0]
			again.Seq++
			again.Key.Lo++
			b.Entries = append(b.Entries, again)
		},
		"more held than there is": func(_ *Office, b *evently.Batch) { b.Tiers[0].Held = 11 },
		"change of a reservation that is not there": func(o *Office, b *evently.Batch) {
			b.Entries = append(b.Entries, evently.Entry{Kind: evently.ConfirmedEntry, Seq: b.Entries[0].Seq + 1, At: o.Now, Token: 99})
		},
		"change of a reservation that has ended": func(o *Office, b *evently.Batch) {
			b.Entries = append(b.Entries, evently.Entry{Kind: evently.CancelledEntry, Seq: b.Entries[0].Seq + 1, At: o.Now, Token: 5})
		},
	} {
		o, before := t.office(10), t.count()
		asked := evently.OneItem(oneSeat)
		o.do(o.Now, &evently.Book{User: 7, Key: evently.Key{Hi: 5}, Items: asked, Token: 5}, &evently.Release{User: 7, Token: 5})
		o.Book(7, o.Now, oneSeat)
		batch, outcome := o.Take()
		damage(o, batch)
		if err := o.Append(batch, outcome); !errors.Is(err, evently.ErrNotWritten) {
			t.Errorf("%s: got %v, want %v", name, err, evently.ErrNotWritten)
		}
		if n := t.count() - before; n != 1 {
			t.Errorf("%s: %d reservations, want the first one alone", name, n)
		}
	}
}

func ownersOfManyEventsWriteAtOnce(t *journalTest) {
	const events, rounds = 40, 10
	var group sync.WaitGroup
	for range events {
		o := t.office(1000)
		group.Go(func() {
			for range rounds {
				o.Book(7, o.Now, oneSeat)
				o.Book(7, o.Now, evently.Item{Quantity: 2})
				if err := o.Flush(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if n := t.count(); n != 2*events*rounds {
		t.Errorf("%d reservations, want %d", n, 2*events*rounds)
	}
}

// Two nodes take an event from each other. Each finds what the other wrote, in a later epoch, and the one that lost the event
// writes nothing more.
func nodesOwnAnEventInTurn(t *journalTest) {
	const turns = 6
	journals := []evently.Journal{t.other, t.journal}
	old := t.office(100)
	for turn := range turns {
		old.book(7, old.Now, oneSeat)
		fresh := OpenOffice(t.T, journals[turn%2], old.Ledger.Event().ID)
		if fresh.Epoch <= old.Epoch || fresh.Owner == old.Owner {
			t.Errorf("turn %d: epoch %d owner %x after epoch %d owner %x", turn, fresh.Epoch, fresh.Owner, old.Epoch, old.Owner)
		}
		if live := fresh.Ledger.Live(); live != turn+1 {
			t.Errorf("turn %d: loaded %d reservations, want %d", turn, live, turn+1)
		}
		old.Book(7, old.Now, oneSeat)
		if err := old.Flush(); !errors.Is(err, evently.ErrFenced) {
			t.Errorf("turn %d: the owner before got %v, want %v", turn, err, evently.ErrFenced)
		}
		old = fresh
	}
	if n := t.count(); n != turns {
		t.Errorf("%d reservations stored, want %d", n, turns)
	}
}

// Several owners of one event, on two nodes, write and acquire in turns that nobody plans. What one was told is written is
// what a later one loads. An acquisition that another one follows at once may fail.
func ofConcurrentOwnersTheLastOneWrites(t *journalTest) {
	event := create(t.T, t.catalogue, newEvent(1000)).ID
	const owners, rounds = 4, 15
	written := make([]int, owners)
	var group sync.WaitGroup
	for i := range owners {
		journal := []evently.Journal{t.journal, t.other}[i%2]
		group.Go(func() {
			for range rounds {
				tenure, err := journal.Acquire(t.Context(), event)
				if errors.Is(err, evently.ErrUnavailable) && errors.Is(err, evently.ErrFenced) {
					continue
				}
				if err != nil {
					t.Errorf("acquire: %v", err)
					return
				}
				o := &Office{t: t, journal: journal, Tenure: tenure}
				for err = nil; err == nil && written[i] < 3*rounds; {
					o.Book(7, o.Now, oneSeat)
					if err = o.Flush(); err == nil {
						written[i]++
					} else if !errors.Is(err, evently.ErrFenced) {
						t.Errorf("append: %v", err)
					}
				}
			}
		})
	}
	group.Wait()
	sum := 0
	for _, n := range written {
		sum += n
	}
	if live := OpenOffice(t.T, t.journal, event).Ledger.Live(); live != sum || t.count() != sum {
		t.Errorf("%d acknowledged, %d loaded, %d stored", sum, live, t.count())
	}
}
