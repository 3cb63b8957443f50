package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"github.com/evently/evently"
)

// mailStepMax bounds the entries that become mails in one transaction.
const mailStepMax = 500

// Consumer makes mails of the journal's new entries, for the feed.
func (m *Mail) Consumer(jobs *Jobs) Consumer {
	return Consumer{
		Name: "mail", FromNow: true, EntriesMax: mailStepMax,
		Consume: func(ctx context.Context, tx pgx.Tx, spans []Span) error {
			switch room, err := m.room(ctx, tx); {
			case err != nil:
				return err
			case !room:
				return errNoRoom
			}
			told, err := tell(ctx, tx, spans)
			if err != nil {
				return err
			}
			return jobs.InsertManyTx(ctx, tx, told)
		},
	}
}

// pendingMailSQL counts up to $2 mails that wait, also while the mail server is known to be away. It is served by
// river_job_prioritized_fetching_index, without the table.
const pendingMailSQL = `
select count(*)
from unnest('{available,scheduled,running}'::river_job_state[]) s (state)
cross join lateral (select from river_job j where j.state = s.state and j.queue = $1 limit $2) waiting`

// room reports whether fewer than mailPendingMax mails wait.
func (m *Mail) room(ctx context.Context, tx pgx.Tx) (bool, error) {
	var pending int
	if err := tx.QueryRow(ctx, pendingMailSQL, mailQueue, m.config.pendingMax).Scan(&pending); err != nil {
		return false, failed(err, "count the mails that wait")
	}
	return pending < m.config.pendingMax, nil
}

// fact is an entry that somebody may have to be told of.
type fact struct {
	kind   evently.EntryKind
	ref    evently.ReservationID
	user   evently.UserID
	who    evently.UserID
	seq    uint64
	at     time.Time
	waiter bool // HeldEntry: it serves one
}

// tell returns the jobs that tell of the entries of spans, and keeps what becomes of the events.
func tell(ctx context.Context, tx pgx.Tx, spans []Span) ([]river.InsertManyParams, error) {
	var facts []fact
	var notices []eventNotice
	if err := ReadSpans(ctx, tx, spans, func(e *FeedEntry) error {
		switch e.Kind {
		case evently.HeldEntry, evently.ConfirmedEntry, evently.WaitlistedEntry, evently.WaiterClosedEntry:
			facts = append(facts, newFact(e))
		case evently.CancelledEntry:
			if e.WasConfirmed {
				facts = append(facts, newFact(e))
			}
		case evently.EventCreatedEntry, evently.EventRevisedEntry, evently.EventPublishedEntry, evently.EventCancelledEntry:
			notices = append(notices, eventNotice{
				event: e.EventID, seq: e.Seq, at: e.At, EventNotice: e.Event.Notice(),
				published: e.Event.Status == evently.EventPublished, cancelled: e.Event.Status == evently.EventCancelled,
			})
		case evently.EventDeletedEntry, evently.ExpiredEntry, evently.WaiterPrioritizedEntry, evently.WaiterLeftEntry,
			evently.EventPricingSetEntry, evently.EventRepricedEntry:
		}
		return nil
	}); err != nil {
		return nil, err
	}
	changed, err := keepNotices(ctx, tx, notices)
	if err != nil {
		return nil, err
	}
	jobs, err := mailsOf(ctx, tx, facts)
	for _, change := range changed {
		jobs = append(jobs, river.InsertManyParams{Args: changeArgs{Event: change.event.String(), Seq: change.seq, At: change.at}})
	}
	return jobs, err
}

func newFact(e *FeedEntry) fact {
	return fact{
		kind: e.Kind, ref: evently.ReservationID{Event: e.EventID, Token: e.Token}, user: e.User, who: e.Who, seq: e.Seq, at: e.At,
		waiter: e.Waiter,
	}
}

// standingSQL reads, for entries $3 of reservations or waiters $1 and $2, how these stand now: whether the hold is still to be confirmed,
// whether somebody still waits, who was a waiter to be booked at once, and whether the event was cancelled before the entry, or is
// cancelled now. Indexes: the primary keys.
const standingSQL = `
select coalesce(r.status = 0 and r.expires_at > clock_timestamp(), false), coalesce(w.status = 0, false),
    coalesce(w.on_release = 0, false),
    exists (select from mail_events m where m.event_id = f.event_id and m.seq < f.seq and m.cancelled), coalesce(e.status = 2, false)
from unnest($1::int8[], $2::int8[], $3::int8[]) with ordinality as f (event_id, token, seq, number)
left join reservations r on r.event_id = f.event_id and r.token = f.token
left join waitlist w on w.event_id = f.event_id and w.token = f.token
left join events e on e.event_id = f.event_id
order by f.number`

type standing struct{ held, waits, bookedAtOnce, afterEnd, ended bool }

func mailsOf(ctx context.Context, tx pgx.Tx, facts []fact) ([]river.InsertManyParams, error) {
	if len(facts) == 0 {
		return nil, nil
	}
	events, tokens, seqs := make([]int64, len(facts)), make([]int64, len(facts)), make([]int64, len(facts))
	for i := range facts {
		events[i], tokens[i], seqs[i] = int64(facts[i].ref.Event), int64(facts[i].ref.Token), int64(facts[i].seq)
	}
	rows, err := tx.Query(ctx, standingSQL, events, tokens, seqs)
	if err != nil {
		return nil, failed(err, "read how reservations stand")
	}
	var jobs []river.InsertManyParams
	for i := 0; rows.Next(); i++ {
		var now standing
		if err := rows.Scan(&now.held, &now.waits, &now.bookedAtOnce, &now.afterEnd, &now.ended); err != nil {
			rows.Close()
			return nil, failed(err, "read how reservations stand")
		}
		if kind, tell := facts[i].mail(now); tell {
			jobs = append(jobs, river.InsertManyParams{Args: newMailArgs(kind, facts[i].ref, facts[i].user, facts[i].seq, facts[i].at)})
		}
	}
	if err := rows.Err(); err != nil {
		return nil, failed(err, "read how reservations stand")
	}
	return jobs, nil
}

// mail decides what an entry is told as, if at all.
func (f *fact) mail(now standing) (kind evently.MailKind, tell bool) {
	switch f.kind {
	case evently.HeldEntry:
		if f.waiter {
			// The booking that follows a hold at once tells both.
			return evently.WaitlistOfferMail, now.held && !now.bookedAtOnce
		}
		return evently.HoldMadeMail, now.held
	case evently.ConfirmedEntry:
		if now.bookedAtOnce {
			return evently.WaitlistBookedMail, true
		}
		return evently.BookingConfirmedMail, true
	case evently.CancelledEntry:
		if now.afterEnd || now.ended && f.who != f.user { // the latter for events that were cancelled before mail began
			return evently.EventCancelledMail, true
		}
		return evently.BookingCancelledMail, true
	case evently.WaitlistedEntry:
		return evently.WaitlistJoinedMail, now.waits
	case evently.WaiterClosedEntry:
		return evently.WaitlistClosedMail, true
	default:
		return 0, false
	}
}
