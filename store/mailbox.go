package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/evently/evently"
)

// mailboxMax is how many mails the mailbox keeps, the newest ones. It is trimmed at each mailboxTrim-th mail, and so holds
// up to that many more.
const (
	mailboxMax  = 1000
	mailboxTrim = 50
)

// Mailbox takes mails on machines of developers, where there is no mail server, and shows them on every node.
type Mailbox struct{ pool *pgxpool.Pool }

var (
	_ evently.Courier = (*Mailbox)(nil)
	_ evently.Mailbox = (*Mailbox)(nil)
)

// NewMailbox returns the mailbox of a database.
func NewMailbox(pool *pgxpool.Pool) *Mailbox { return &Mailbox{pool} }

// storedAttachment is an attachment in the column attachments; its content is in base64.
type storedAttachment struct {
	Name      string `json:"name"`
	MediaType string `json:"media_type"`
	Content   []byte `json:"content"`
}

const (
	// putMailSQL keeps one of the messages with the same Message-ID. Bookings do not share the disk with it: a mail for a developer may
	// be lost with the machine.
	putMailSQL = `
insert into mailbox (message_id, kind, sender, recipient, subject, body, html, attachments, at)
select $1, $2::int2, $3, $4, $5, $6, $7, $8::jsonb, $9::timestamptz from set_config('synchronous_commit', 'off', true) async
on conflict do nothing
returning number`
	trimMailboxSQL = `delete from mailbox where number <= $1`
)

// Deliver implements evently.Courier.
func (b *Mailbox) Deliver(ctx context.Context, message *evently.Message) error {
	files := make([]storedAttachment, len(message.Attachments))
	for i, file := range message.Attachments {
		files[i] = storedAttachment(file)
	}
	attachments, err := json.Marshal(files)
	if err != nil {
		return fmt.Errorf("put a mail into the mailbox: %w", err)
	}
	var number int64
	err = b.pool.QueryRow(ctx, putMailSQL, message.ID, message.Kind, message.From, message.To, message.Subject, message.Text, message.HTML,
		string(attachments), message.At).Scan(&number)
	switch {
	case errors.Is(err, pgx.ErrNoRows): // it is there already
	case err != nil:
		return failed(err, "put a mail into the mailbox")
	case number%mailboxTrim == 0:
		if _, err := b.pool.Exec(ctx, trimMailboxSQL, number-mailboxMax); err != nil {
			return failed(err, "trim the mailbox")
		}
	}
	return nil
}

// mailboxSQL is served by the primary key, or by mailbox_by_recipient.
const mailboxSQL = `
select number, message_id, kind, sender, recipient, subject, body, html, attachments, at
from mailbox where $1 = '' or recipient = $1
order by number desc
limit $2`

// Messages implements evently.Mailbox.
func (b *Mailbox) Messages(ctx context.Context, to string, limit int) ([]evently.StoredMessage, error) {
	rows, err := b.pool.Query(ctx, mailboxSQL, to, limit)
	messages, err := collect(rows, err, func(row pgx.CollectableRow) (m evently.StoredMessage, err error) {
		var attachments []byte
		if err := row.Scan(&m.Number, &m.ID, &m.Kind, &m.From, &m.To, &m.Subject, &m.Text, &m.HTML, &attachments, &m.At); err != nil {
			return m, err
		}
		var files []storedAttachment
		if err := json.Unmarshal(attachments, &files); err != nil {
			return m, fmt.Errorf("attachments of %s: %w", m.ID, err)
		}
		for _, file := range files {
			m.Attachments = append(m.Attachments, evently.Attachment(file))
		}
		m.At = m.At.UTC()
		return m, nil
	})
	if err != nil {
		return nil, failed(err, "read the mailbox")
	}
	return messages, nil
}
