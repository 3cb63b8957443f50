package store

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"github.com/evently/evently"
)

const (
	// changePageMax bounds the reservations that one job looks at.
	changePageMax = 1000
	// changePause is until another try when too many mails wait.
	changePause = 5 * time.Second
)

// changeArgs tells the holders of live reservations of a change of their event, from the reservation After on: a page of them, and the
// next job does the next one.
type changeArgs struct {
	Event string    `json:"event" river:"unique"` // evently.EventID
	Seq   uint64    `json:"seq" river:"unique"`   // of the entry that changed it
	At    time.Time `json:"at"`                   // of that entry
	After *int64    `json:"after,omitempty" river:"unique"`
}

func (changeArgs) Kind() string { return "mail_change" }

func (changeArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{
		Queue: mailQueue, MaxAttempts: mailAttemptsMax, Priority: fanOutPriority, UniqueOpts: river.UniqueOpts{ByArgs: true},
	}
}

type changeWorker struct {
	river.WorkerDefaults[changeArgs]
	mail *Mail
	pool *pgxpool.Pool
}

// NextRetry implements river.Worker.
func (w *changeWorker) NextRetry(job *river.Job[changeArgs]) time.Time { return mailRetry(job.Attempt) }

// changedReservationsSQL is a page of an event's reservations, whatever their status, so that a page has its bound. The
// primary key serves it.
const changedReservationsSQL = `
select token, user_id, status from reservations where event_id = $1 and token > $2 order by token limit $3`

// eventCancelledSinceSQL is served by the primary key.
const eventCancelledSinceSQL = `
select exists (select from mail_events where event_id = $1 and seq > $2 and cancelled)`

// Work implements river.Worker. The page's mails, the job for the next page and the end of this one are one transaction.
func (w *changeWorker) Work(ctx context.Context, job *river.Job[changeArgs]) error {
	event, err := evently.ParseEventID(job.Args.Event)
	if err != nil {
		return river.JobCancel(err)
	}
	err = pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		if room, err := w.mail.room(ctx, tx); err != nil || !room {
			if err == nil {
				err = river.JobSnooze(changePause)
			}
			return err
		}
		next, err := w.page(ctx, tx, event, &job.Args)
		if err != nil {
			return err
		}
		if len(next) > 0 {
			if _, err := river.ClientFromContext[pgx.Tx](ctx).InsertManyTx(ctx, tx, next); err != nil {
				return failed(err, "queue mails")
			}
		}
		_, err = river.JobCompleteTx[*riverpgxv5.Driver](ctx, tx, job)
		return err
	})
	if err != nil {
		return fmt.Errorf("tell the holders of event %s: %w", event, err)
	}
	return nil
}

// page returns the mails of a page, and the job for the next one unless it is the last.
func (w *changeWorker) page(ctx context.Context, tx pgx.Tx, event evently.EventID, args *changeArgs) (
	jobs []river.InsertManyParams, err error,
) {
	var cancelled bool
	if err := tx.QueryRow(ctx, eventCancelledSinceSQL, int64(event), int64(args.Seq)).Scan(&cancelled); err != nil {
		return nil, failed(err, "look whether event %s is cancelled", event)
	}
	if cancelled { // everybody hears that instead
		return nil, nil
	}
	after := int64(math.MinInt64)
	if args.After != nil {
		after = *args.After
	}
	rows, err := tx.Query(ctx, changedReservationsSQL, int64(event), after, changePageMax)
	if err != nil {
		return nil, failed(err, "list the reservations of event %s", event)
	}
	var token, user int64
	var status evently.ReservationStatus
	tag, err := pgx.ForEachRow(rows, []any{&token, &user, &status}, func() error {
		if status.Live() {
			ref := evently.ReservationID{Event: event, Token: evently.Token(token)}
			jobs = append(jobs, river.InsertManyParams{
				Args: newMailArgs(evently.EventChangedMail, ref, evently.UserID(user), args.Seq, args.At),
			})
		}
		return nil
	})
	if err != nil {
		return nil, failed(err, "list the reservations of event %s", event)
	}
	if tag.RowsAffected() == changePageMax {
		jobs = append(jobs, river.InsertManyParams{Args: changeArgs{Event: args.Event, Seq: args.Seq, At: args.At, After: &token}})
	}
	return jobs, nil
}
