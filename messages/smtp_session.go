package messages

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	gomail "github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"

	"github.com/evently/evently"
)

// smtpSession is a connection that has signed in. One mail uses it at a time.
type smtpSession struct {
	conn    net.Conn
	timeout time.Duration
	client  *gomail.Client
	session *smtp.Client
	used    time.Time
}

// connectSMTP connects and signs in within timeout. The end of ctx interrupts it.
func connectSMTP(ctx context.Context, server *SMTPServer, roots *x509.CertPool, timeout time.Duration) (*smtpSession, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	secure := &tls.Config{ServerName: server.Host, RootCAs: roots, MinVersion: tls.VersionTLS12}
	conn, err := dialSMTP(ctx, server, secure)
	if err != nil {
		return nil, err
	}
	s := &smtpSession{conn: conn, timeout: timeout}
	options := []gomail.Option{
		gomail.WithPort(server.Port), gomail.WithTimeout(timeout), gomail.WithTLSConfig(secure), gomail.WithTLSPolicy(gomail.NoTLS),
		// Dialled here, so that ctx can interrupt what follows, and because go-mail leaves a connection open that fails on the way.
		gomail.WithDialContextFunc(func(context.Context, string, string) (net.Conn, error) { return conn, nil }),
	}
	if server.StartTLS {
		options = append(options, gomail.WithTLSPolicy(gomail.TLSMandatory))
	}
	switch {
	case server.User == "":
	case server.StartTLS:
		options = append(options, gomail.WithSMTPAuth(gomail.SMTPAuthAutoDiscover))
	default: // inside of TLS that go-mail does not know of, or on this machine
		options = append(options, gomail.WithOpportunisticSMTPAuth(
			gomail.SMTPAuthSCRAMSHA256, gomail.SMTPAuthPlainNoEnc, gomail.SMTPAuthLoginNoEnc))
	}
	interrupted := context.AfterFunc(ctx, s.drop)
	defer interrupted()
	if s.client, err = gomail.NewClient(server.Host, options...); err == nil {
		s.client.SetUsername(server.User)
		s.client.SetPassword(server.Password)
		s.session, err = s.client.DialToSMTPClientWithContext(ctx)
	}
	if err != nil {
		s.drop()
		return nil, errors.Join(err, ctx.Err())
	}
	return s, nil
}

func dialSMTP(ctx context.Context, server *SMTPServer, secure *tls.Config) (net.Conn, error) {
	address := net.JoinHostPort(server.Host, strconv.Itoa(server.Port))
	if server.Implicit {
		return (&tls.Dialer{Config: secure}).DialContext(ctx, "tcp", address)
	}
	return new(net.Dialer).DialContext(ctx, "tcp", address)
}

// send sends one mail. The end of ctx interrupts it.
func (s *smtpSession) send(ctx context.Context, message *gomail.Msg) error {
	interrupted := context.AfterFunc(ctx, s.drop)
	defer interrupted()
	if err := s.conn.SetDeadline(time.Now().Add(s.timeout)); err != nil {
		return err
	}
	if err := s.client.SendWithSMTPClient(s.session, message); err != nil && !message.IsDelivered() {
		return errors.Join(err, ctx.Err())
	}
	return nil // also when what failed came after the server had taken it
}

// drop ends the connection without a word. Whatever uses it fails.
func (s *smtpSession) drop() {
	_ = s.conn.Close() // it is of no use any more, however it ends
}

func (s *smtpSession) quit() {
	if err := s.conn.SetDeadline(time.Now().Add(smtpQuitMax)); err == nil {
		_ = s.client.CloseWithSMTPClient(s.session) // the server has what it took, and may have gone
	}
	s.drop()
}

// stale reports whether a connection was lost before the mail was begun.
func stale(err error) bool {
	var failed *gomail.SendError
	return errors.As(err, &failed) && failed.Reason == gomail.ErrConnCheck
}

// ofRecipient reports whether the server has answered, and did not want the mail for its recipient, now or for ever.
func ofRecipient(err error) bool {
	var failed *gomail.SendError
	return errors.As(err, &failed) && failed.Reason == gomail.ErrSMTPRcptTo && failed.ErrorCode() != 0
}

// refusedForGood reports whether the server will never take this mail: a 5xx (RFC 5321, section 4.2.1) to its recipient or content.
func refusedForGood(err error) bool {
	var failed *gomail.SendError
	if !errors.As(err, &failed) || failed.ErrorCode() < 500 {
		return false
	}
	return failed.Reason == gomail.ErrSMTPRcptTo || failed.Reason == gomail.ErrSMTPData || failed.Reason == gomail.ErrSMTPDataClose
}

// buildMessage makes a MIME message: text and HTML as alternatives, and attachments.
func buildMessage(message *evently.Message) (*gomail.Msg, error) {
	built := gomail.NewMsg()
	if err := built.From(message.From); err != nil {
		return nil, fmt.Errorf("sender: %w", err)
	}
	if err := built.To(message.To); err != nil {
		return nil, fmt.Errorf("recipient: %w", err)
	}
	built.Subject(message.Subject)
	built.SetMessageIDWithValue(message.ID)
	built.SetDateWithValue(message.At)
	built.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: no answers of machines, please
	built.SetBodyString(gomail.TypeTextPlain, message.Text)
	built.AddAlternativeString(gomail.TypeTextHTML, message.HTML)
	for _, file := range message.Attachments {
		kind := gomail.WithFileContentType(gomail.ContentType(file.MediaType))
		if err := built.AttachReader(file.Name, bytes.NewReader(file.Content), kind); err != nil {
			return nil, fmt.Errorf("attachment %s: %w", file.Name, err)
		}
	}
	return built, nil
}
