package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"

	"github.com/evently/evently"
)

// mailRetry is when a mail is tried again that has failed so many times.
func mailRetry(attempts int) time.Time {
	pause := mailRetryMax
	if doublings := max(attempts, 1) - 1; doublings < 10 {
		pause = min(mailRetryMin<<doublings, mailRetryMax)
	}
	return time.Now().Add(pause/2 + rand.N(pause/2)) //nolint:gosec // no secret
}

// send sends a mail, and says by its error what becomes of the job.
func (m *Mail) send(ctx context.Context, mail *evently.Mail) error {
	if err := m.limiter.Wait(ctx); err != nil {
		return fmt.Errorf("wait for the rate of mails: %w", err)
	}
	err := m.config.Mailer.Send(ctx, mail)
	switch {
	case errors.Is(err, evently.ErrMailPaused):
		return river.JobSnooze(m.config.Pause + rand.N(2*m.config.Pause)) //nolint:gosec // no secret
	case errors.Is(err, evently.ErrMailRefused):
		m.config.Logger.WarnContext(ctx, "a mail is refused for good", "mail", mail.ID, "kind", mail.Kind.String(), "error", err)
		return river.JobCancel(err)
	}
	return err
}

// codeWorker sends mails with codes.
type codeWorker struct {
	river.WorkerDefaults[codeArgs]
	mail *Mail
}

// NextRetry implements river.Worker.
func (w *codeWorker) NextRetry(job *river.Job[codeArgs]) time.Time { return mailRetry(job.Attempt) }

// Work implements river.Worker.
func (w *codeWorker) Work(ctx context.Context, job *river.Job[codeArgs]) error {
	plain, err := w.mail.seal.open(job.Args.Sealed, job.Args.ID)
	switch {
	case err == nil:
	case time.Since(job.CreatedAt) < evently.CodeTTL: // while secrets are rotated another node may have the one that it takes
		return river.JobSnooze(time.Second + rand.N(time.Second)) //nolint:gosec // no secret
	default:
		return river.JobCancel(fmt.Errorf("open a mail with a code: %w", err))
	}
	var code sealedCode
	if err := json.Unmarshal(plain, &code); err != nil {
		return river.JobCancel(errors.New("a mail with a code cannot be read")) // the cause might show it
	}
	if !code.ExpiresAt.After(time.Now()) {
		return nil
	}
	mail := &evently.Mail{
		ID: job.Args.ID, To: code.To, Name: code.Name, At: job.CreatedAt, Code: code.Code, ExpiresAt: code.ExpiresAt,
	}
	switch code.Purpose {
	case evently.VerifyEmailCode:
		mail.Kind = evently.VerifyEmailMail
	case evently.ResetPasswordCode:
		mail.Kind = evently.ResetPasswordMail
	default:
		return river.JobCancel(fmt.Errorf("a mail with a code for %s", code.Purpose))
	}
	return w.mail.send(ctx, mail)
}

// mailWorker sends mails about reservations and waiters.
type mailWorker struct {
	river.WorkerDefaults[mailArgs]
	mail *Mail
	pool *pgxpool.Pool
}

// NextRetry implements river.Worker.
func (w *mailWorker) NextRetry(job *river.Job[mailArgs]) time.Time { return mailRetry(job.Attempt) }

// Work implements river.Worker. A mail that has been overtaken is done without being sent.
func (w *mailWorker) Work(ctx context.Context, job *river.Job[mailArgs]) error {
	mail, err := w.read(ctx, &job.Args)
	switch {
	case err != nil:
		return err
	case mail == nil:
		return nil
	}
	return w.mail.send(ctx, mail)
}

// Indexes: the primary keys.
const (
	mailUserSQL  = `select email, name from users where user_id = $1`
	mailEventSQL = `select to_jsonb(e) from events e where event_id = $1`
)

// read reads what a mail says as it is now; nil: there is nothing to say any more.
func (w *mailWorker) read(ctx context.Context, args *mailArgs) (*evently.Mail, error) {
	ref, err := evently.ParseReservationID(args.Ref)
	if err != nil {
		return nil, river.JobCancel(err)
	}
	user, err := evently.ParseUserID(args.User)
	if err != nil {
		return nil, river.JobCancel(err)
	}
	mail := &evently.Mail{ID: args.ID, Kind: args.Mail, At: args.At, Seq: args.Seq}
	var event []byte
	var batch pgx.Batch // one round trip, and one moment
	batch.Queue(mailUserSQL, int64(user)).QueryRow(func(row pgx.Row) error { return row.Scan(&mail.To, &mail.Name) })
	batch.Queue(mailEventSQL, int64(ref.Event)).QueryRow(func(row pgx.Row) error { return row.Scan(&event) })
	switch args.Mail {
	case evently.WaitlistJoinedMail, evently.WaitlistClosedMail:
		batch.Queue(waiterSQL, int64(ref.Event), int64(ref.Token)).QueryRow(func(row pgx.Row) error {
			waiter, err := scanWaiterState(row)
			mail.Waiter = &waiter.Waiter
			return err
		})
	case evently.EventChangedMail:
		batch.Queue(lastNoticeSQL, int64(ref.Event), int64(args.Seq)).QueryRow(func(row pgx.Row) error {
			before := new(evently.EventNotice)
			mail.Before = before
			var cancelled bool
			return row.Scan(&before.Name, &before.Venue, &before.City, &before.Timezone, &before.StartsAt, &before.EndsAt, &cancelled)
		})
		fallthrough
	default:
		batch.Queue(reservationSQL, int64(ref.Event), int64(ref.Token)).QueryRow(func(row pgx.Row) error {
			reservation, err := scanReservation(row)
			mail.Reservation = &reservation.Reservation
			return err
		})
	}
	err = w.pool.SendBatch(ctx, &batch).Close()
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, nil // forgotten, as the retention of data asks for
	case err != nil:
		return nil, failed(err, "read what mail %s says", args.ID)
	}
	if mail.Event, err = decodeEvent(event); err != nil {
		return nil, fmt.Errorf("mail %s: event %s: %w", args.ID, ref.Event, err)
	}
	if overtaken(mail, time.Now()) {
		return nil, nil
	}
	return mail, nil
}

// overtaken reports whether what a mail says is not so any more. It sets what ends with the mail's offer.
func overtaken(mail *evently.Mail, now time.Time) bool {
	switch mail.Kind {
	case evently.HoldMadeMail, evently.WaitlistOfferMail:
		mail.ExpiresAt = mail.Reservation.ExpiresAt
		return mail.Reservation.Status != evently.Held || !now.Before(mail.ExpiresAt)
	case evently.WaitlistJoinedMail:
		return mail.Waiter.Status != evently.Waiting
	case evently.EventChangedMail:
		told := eventNotice{EventNotice: *mail.Before}
		return !mail.Reservation.Status.Live() || told.tellsTheSame(&eventNotice{EventNotice: mail.Event.Notice()})
	default:
		return false
	}
}
