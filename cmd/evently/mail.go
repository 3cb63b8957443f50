package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/evently/evently"
	"github.com/evently/evently/messages"
	"github.com/evently/evently/store"
)

// mails are the parts that send mail. Without a mail server mails go to a mailbox that operators can read, except in production, where
// nobody must read what is meant for others: there none are made.
type mails struct {
	kept    *store.Mail    // nil: none are made
	smtp    *messages.SMTP // nil: there is no server
	mailbox *store.Mailbox // nil: there is a server, or it is production
}

// mailFromDefault is the sender in the mailbox. A mail server is told a real one.
const mailFromDefault = "Evently <evently@localhost>"

// checkMail returns what is wrong with the settings of mail.
func (c *Config) checkMail() error {
	var wrong []error
	if c.SMTPURL != "" {
		if _, err := messages.ParseSMTPURL(c.SMTPURL); err != nil {
			wrong = append(wrong, fmt.Errorf("smtp_url: %w", err))
		}
		if c.MailFrom == "" {
			wrong = append(wrong, errors.New("mail_from is not set: smtp_url goes with a sender that its server accepts"))
		}
	}
	if _, err := messages.NewMailer(c.mailerConfig(nil)); err != nil {
		wrong = append(wrong, err)
	}
	return errors.Join(wrong...)
}

func (c *Config) mailerConfig(courier evently.Courier) messages.MailerConfig {
	config := messages.MailerConfig{From: c.MailFrom, PublicURL: c.PublicURL, Courier: courier}
	if config.From == "" {
		config.From = mailFromDefault
	}
	return config
}

func (p *program) newMails(pool *pgxpool.Pool) (*mails, error) {
	c := p.config
	m := new(mails)
	var courier evently.Courier
	switch {
	case c.SMTPURL != "":
		var err error
		if m.smtp, err = messages.NewSMTP(messages.SMTPConfig{
			URL: c.SMTPURL, Logger: p.log, Metrics: messages.NewMailMetrics(p.registry),
		}); err != nil {
			return nil, err
		}
		p.onStop("mail connections", func(context.Context) error {
			m.smtp.Close()
			return nil
		})
		courier = m.smtp
	case c.Env == production:
		p.log.Error("smtp_url is not set: NO MAIL IS SENT; nobody can verify an address or reset a password, or hears of a booking")
		return m, nil
	default:
		m.mailbox = store.NewMailbox(pool)
		courier = m.mailbox
	}
	mailer, err := messages.NewMailer(c.mailerConfig(courier))
	if err != nil {
		return nil, err
	}
	m.kept, err = store.NewMail(store.MailConfig{
		Mailer: mailer, PerSecond: float64(c.MailRate), Logger: p.log, Secrets: c.secretKeys(),
	})
	return m, err
}

// queue takes mails with codes, or is nil.
func (m *mails) queue(jobs *store.Jobs) store.MailQueue {
	if m.kept == nil {
		return nil
	}
	return m.kept.Codes(jobs)
}

// shown is what operators can read, or nil.
func (m *mails) shown() evently.Mailbox {
	if m.mailbox == nil {
		return nil
	}
	return m.mailbox
}

// mailboxURL is where the mails are shown that have no server to go to; "": nowhere.
func (p *program) mailboxURL() string {
	if p.config.SMTPURL != "" || p.config.Env == production {
		return ""
	}
	shown := url.URL{Scheme: "http", Host: p.admin.Addr().String(), Path: "/dev/mailbox"}
	return shown.String()
}
