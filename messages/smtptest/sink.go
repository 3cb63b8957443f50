// Package smtptest is a mail server for tests: it speaks SMTP on the loopback interface, keeps what it takes, and fails in all the
// ways that servers do.
package smtptest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/url"
	"sync"
	"testing"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// Options say what a Sink asks of its clients.
type Options struct {
	// User and Password sign in; empty: nobody has to.
	User, Password string
	// StartTLS offers STARTTLS, and allows nobody to sign in without. Implicit speaks TLS from the first byte.
	StartTLS, Implicit bool
}

// Behaviour is what a Sink does at the stages of a conversation; nil: what is right. An error of Reply is the server's answer, and
// ErrDrop ends the connection without one. They may block until ctx ends, which Stop does.
type Behaviour struct {
	Connect   func(ctx context.Context) error // before a client's greeting is answered; it may greet again
	Recipient func(ctx context.Context, to string) error
	Data      func(ctx context.Context, message *Message) error // before the message is kept
	Kept      func(ctx context.Context, message *Message) error // after that, and before the server says so
}

// Hang is a stage at which nothing happens any more.
func Hang(ctx context.Context) error {
	<-ctx.Done()
	return ErrDrop
}

// ErrDrop has the Sink end the connection.
var ErrDrop = errors.New("drop the connection")

// Reply is a server's answer with a code such as 451.
func Reply(code int, text string) error {
	return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{code / 100, 7, 1}, Message: text}
}

// Sink is a mail server.
type Sink struct {
	options Options
	address string
	server  *tls.Config
	roots   *x509.CertPool

	mu          sync.Mutex
	running     *smtp.Server
	listener    net.Listener
	stopped     chan struct{} // closed when running has ended
	end         context.CancelFunc
	behaviour   Behaviour
	messages    []*Message
	connections int
	changed     chan struct{} // closed at the next message
}

// Start starts a Sink that ends with the test.
func Start(t testing.TB, options Options) *Sink {
	t.Helper()
	s := &Sink{options: options, address: "127.0.0.1:0", changed: make(chan struct{})}
	if options.StartTLS || options.Implicit {
		var err error
		if s.server, s.roots, err = certificate(); err != nil {
			t.Fatalf("smtptest: %v", err)
		}
	}
	s.Restart(t)
	t.Cleanup(s.Stop)
	return s
}

// Restart has a stopped Sink serve again, at the same address.
func (s *Sink) Restart(t testing.TB) {
	t.Helper()
	listener, err := net.Listen("tcp", s.address)
	if err != nil {
		t.Fatalf("smtptest: %v", err)
	}
	s.address = listener.Addr().String()
	listener = counting{listener, s}
	if s.options.Implicit {
		listener = tls.NewListener(listener, s.server)
	}
	ctx, end := context.WithCancel(context.WithoutCancel(t.Context()))
	stopped := make(chan struct{})
	server := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) { return s.open(ctx, c) }))
	server.Domain, server.EnableSMTPUTF8 = "sink.example", true
	server.AllowInsecureAuth = !s.options.StartTLS && !s.options.Implicit
	server.ErrorLog = log.New(io.Discard, "", 0) // of dropped connections
	if s.options.StartTLS {
		server.TLSConfig = s.server
	}
	go func() {
		defer close(stopped)
		_ = server.Serve(listener) // until Stop
	}()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running, s.listener, s.end, s.stopped = server, listener, end, stopped
}

// Stop ends all connections and takes no more. Calling it again does nothing.
func (s *Sink) Stop() {
	s.mu.Lock()
	running, listener, end, stopped := s.running, s.listener, s.end, s.stopped
	s.running = nil
	s.mu.Unlock()
	if running == nil {
		return
	}
	end()
	_ = listener.Close() // the server knows it only once it serves
	_ = running.Close()  // what is under way fails, as it should
	<-stopped
}

// URL is what a client of the Sink has as its setting.
func (s *Sink) URL() string {
	at := url.URL{Scheme: "smtp", Host: s.address}
	if s.options.Implicit {
		at.Scheme = "smtps"
	}
	if s.options.User != "" {
		at.User = url.UserPassword(s.options.User, s.options.Password)
	}
	if s.options.StartTLS {
		at.RawQuery = "tls=required"
	}
	return at.String()
}

// Roots sign the Sink's certificate.
func (s *Sink) Roots() *x509.CertPool { return s.roots }

// Behave replaces what the Sink does from now on.
func (s *Sink) Behave(behaviour Behaviour) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.behaviour = behaviour
}

// Messages are those that the Sink has kept, in their order.
func (s *Sink) Messages() []*Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*Message(nil), s.messages...)
}

// Connections counts those that were made so far.
func (s *Sink) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.connections
}

// counting counts the connections that a Sink takes.
type counting struct {
	net.Listener
	sink *Sink
}

func (c counting) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.sink.mu.Lock()
		defer c.sink.mu.Unlock()
		c.sink.connections++
	}
	return conn, err
}

// Changed is closed when another message is kept.
func (s *Sink) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

func (s *Sink) now() Behaviour {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.behaviour
}

func (s *Sink) open(ctx context.Context, c *smtp.Conn) (smtp.Session, error) {
	session := &session{sink: s, ctx: ctx, conn: c.Conn(), signedIn: s.options.User == ""}
	if act := s.now().Connect; act != nil {
		if err := session.heed(act(ctx)); err != nil {
			return nil, err
		}
	}
	return session, nil
}

// session is one connection. The interfaces of its methods have no room for a context.
type session struct {
	sink     *Sink
	ctx      context.Context
	conn     net.Conn
	signedIn bool
	from     string
	to       []string
}

// heed drops the connection if a Behaviour says so.
func (s *session) heed(err error) error {
	if errors.Is(err, ErrDrop) {
		_ = s.conn.Close() // that is the point
	}
	return err
}

func (s *session) AuthMechanisms() []string { return []string{sasl.Plain} }

func (s *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != s.sink.options.User || password != s.sink.options.Password {
			return smtp.ErrAuthFailed
		}
		s.signedIn = true
		return nil
	}), nil
}

func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	if !s.signedIn {
		return smtp.ErrAuthRequired
	}
	s.from = from
	return nil
}

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	if act := s.sink.now().Recipient; act != nil {
		if err := s.heed(act(s.ctx, to)); err != nil {
			return err
		}
	}
	s.to = append(s.to, to)
	return nil
}

func (s *session) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	message, err := parse(raw)
	if err != nil {
		return fmt.Errorf("smtptest: %w", err)
	}
	message.From, message.To = s.from, s.to
	behaviour := s.sink.now()
	if behaviour.Data != nil {
		if err := s.heed(behaviour.Data(s.ctx, message)); err != nil {
			return err
		}
	}
	s.sink.keep(message)
	if behaviour.Kept != nil {
		return s.heed(behaviour.Kept(s.ctx, message))
	}
	return nil
}

func (s *Sink) keep(message *Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.messages = append(s.messages, message)
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *session) Reset() { s.from, s.to = "", nil }

func (s *session) Logout() error { return nil }
