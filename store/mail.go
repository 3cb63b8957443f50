package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"golang.org/x/time/rate"

	"github.com/evently/evently"
)

const (
	// mailPendingMax bounds the mails that wait to be sent for the first time. With more the journal is not followed: what it says waits
	// there. Mails that are tried again do not count, or a few receivers that are away would hold up all others.
	mailPendingMax = 1000
	// mailPerSecondDefault is MailConfig.PerSecond unless told otherwise.
	mailPerSecondDefault = 50
	// mailPauseDefault is MailConfig.Pause unless told otherwise.
	mailPauseDefault = 30 * time.Second

	// A mail that fails is tried again after 10 s, 20 s, 40 s and so on up to half an hour: 20 times in about six hours.
	mailAttemptsMax = 20
	mailRetryMin    = 10 * time.Second
	mailRetryMax    = 30 * time.Minute

	// Mails are sent in the order of their priorities.
	codePriority   = 1
	factPriority   = 2
	changePriority = 3
	fanOutPriority = 4
)

// MailConfig says how mails are sent.
type MailConfig struct {
	// Mailer renders and sends.
	Mailer evently.Mailer
	// Secrets of the program: mails with codes are sealed under the first one, and opened by any of them.
	Secrets [][]byte
	// PerSecond bounds the mails that this node sends in a second. Default 50. With a raise mails take more from the machine that
	// bookings could use: each one costs some reads, a row that is written three times, and its rendering.
	PerSecond float64
	// Pause is the least time until a mail is tried again that was not sent because the last ones failed; the most is three times
	// that. Default 30 s.
	Pause  time.Duration
	Logger *slog.Logger

	pendingMax int // in tests: mailPendingMax
}

// Mail turns what happens into mails, and sends them by jobs.
//
// Problem: everybody who is concerned must be told at least once, also when nodes and mail servers fail; and neither a dead mail server
// nor a great many bookings may take from the bookings to come.
//
// What is told comes from two places. The journal's feed makes mails of its entries, in the transaction that moves its cursor: none is
// lost and none made twice. Accounts queue codes in the transaction that stores their digests. A job says only what happened to
// whom; addresses and details are read when it is sent, to any address, verified or not.
//
// What has been overtaken is not told: a hold that is confirmed or over, a place on a waitlist that is left or served, a
// code that has expired. That alone spares most of the mails when thousands are booked in a second. For the rest there is
// a bound: when mailPendingMax mails wait, the consumer waits, with its cursor in the journal.
//
// A change of an event concerns everybody with a live reservation, perhaps a million: one job at a time works through them, page
// by page, and waits when too many mails do.
//
// The ID of a mail is a digest of the entry, the kind and the reservation. A mail that was sent and not recorded as sent, because its node
// died in between, is sent again with the same ID.
type Mail struct {
	config  MailConfig
	seal    seal
	limiter *rate.Limiter
}

// NewMail returns an error when there is no secret.
func NewMail(config MailConfig) (*Mail, error) {
	if config.PerSecond <= 0 {
		config.PerSecond = mailPerSecondDefault
	}
	if config.Pause <= 0 {
		config.Pause = mailPauseDefault
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	if config.pendingMax == 0 {
		config.pendingMax = mailPendingMax
	}
	seal, err := newSeal("evently mail with a code", config.Secrets)
	if err != nil {
		return nil, fmt.Errorf("mail: %w", err)
	}
	return &Mail{config, seal, rate.NewLimiter(rate.Limit(config.PerSecond), 1)}, nil
}

// Work adds the kinds of jobs that send mails; see JobsConfig.Workers.
func (m *Mail) Work(workers *river.Workers, pool *pgxpool.Pool) {
	river.AddWorker(workers, &mailWorker{mail: m, pool: pool})
	river.AddWorker(workers, &codeWorker{mail: m})
	river.AddWorker(workers, &changeWorker{mail: m, pool: pool})
}

// MailQueue takes mails with one-time codes, in the transaction that stores the code's digest: so there is neither a code without its
// mail nor a mail without its code.
type MailQueue interface {
	EnqueueCode(ctx context.Context, tx pgx.Tx, mail *evently.CodeMail) error
}

// Codes returns the queue of mails with codes.
func (m *Mail) Codes(jobs *Jobs) MailQueue { return &mailCodes{m, jobs} }

type mailCodes struct {
	mail *Mail
	jobs *Jobs
}

// EnqueueCode implements MailQueue. No code is readable in the database, nor in what is made of it.
func (c *mailCodes) EnqueueCode(ctx context.Context, tx pgx.Tx, mail *evently.CodeMail) error {
	args := codeArgs{ID: randomMailID(), Purpose: mail.Purpose.String()}
	plain, err := json.Marshal(sealedCode{mail.To, mail.Name, mail.Purpose, mail.Code, mail.ExpiresAt})
	if err != nil {
		return fmt.Errorf("queue a mail with a code: %w", err)
	}
	args.Sealed = c.mail.seal.close(plain, args.ID)
	if err := c.jobs.InsertManyTx(ctx, tx, []river.InsertManyParams{{Args: args}}); err != nil {
		return fmt.Errorf("queue a mail with a code: %w", err)
	}
	return nil
}

// codeArgs is a mail with a code.
type codeArgs struct {
	ID      string `json:"id"`
	Purpose string `json:"purpose"` // for operators
	Sealed  []byte `json:"sealed"`  // sealedCode
}

// sealedCode is a evently.CodeMail as it is kept.
type sealedCode struct {
	To        string              `json:"to"`
	Name      string              `json:"name"`
	Purpose   evently.CodePurpose `json:"purpose"`
	Code      string              `json:"code"`
	ExpiresAt time.Time           `json:"expires_at"`
}

func (codeArgs) Kind() string { return "mail_code" }

func (codeArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Queue: mailQueue, MaxAttempts: mailAttemptsMax, Priority: codePriority}
}

// mailArgs is a mail about a reservation or a waiter, whose ids have the same digits.
type mailArgs struct {
	ID   string           `json:"id" river:"unique"`
	What string           `json:"what"` // the kind, for operators
	Mail evently.MailKind `json:"kind"`
	Ref  string           `json:"ref"` // evently.ReservationID
	User string           `json:"user"`
	Seq  uint64           `json:"seq"` // of the entry that tells the fact
	At   time.Time        `json:"at"`  // of that entry
}

func (mailArgs) Kind() string { return "mail" }

func (a mailArgs) InsertOpts() river.InsertOpts {
	priority := factPriority
	if a.Mail == evently.EventChangedMail {
		priority = changePriority
	}
	return river.InsertOpts{
		Queue: mailQueue, MaxAttempts: mailAttemptsMax, Priority: priority, UniqueOpts: river.UniqueOpts{ByArgs: true},
	}
}

func newMailArgs(kind evently.MailKind, ref evently.ReservationID, user evently.UserID, seq uint64, at time.Time) mailArgs {
	return mailArgs{
		ID: mailID(kind, ref, seq), What: kind.String(), Mail: kind, Ref: ref.String(), User: user.String(), Seq: seq, At: at,
	}
}

// mailIDBytes is the length of a mail's ID before it is written in hexadecimal.
const mailIDBytes = 16

// mailID names what a mail tells: SHA-256 of the kind, the event, the entry and the reservation, cut to 128 bits.
func mailID(kind evently.MailKind, ref evently.ReservationID, seq uint64) string {
	fact := []byte{byte(kind)}
	for _, part := range []uint64{uint64(ref.Event), seq, uint64(ref.Token)} {
		fact = binary.BigEndian.AppendUint64(fact, part)
	}
	digest := sha256.Sum256(fact)
	return hex.EncodeToString(digest[:mailIDBytes])
}

func randomMailID() string {
	var id [mailIDBytes]byte
	rand.Read(id[:])
	return hex.EncodeToString(id[:])
}
