package messages

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sony/gobreaker/v2"
	gomail "github.com/wneessen/go-mail"

	"github.com/evently/evently"
)

const (
	// smtpConnsMax bounds the connections to the mail server. More mails wait for one.
	smtpConnsMax = 4
	// smtpIdleMax is how long a connection is kept for the next mail. Servers wait minutes.
	smtpIdleMax = 30 * time.Second
	// smtpTimeoutDefault bounds connecting with all that belongs to it, and then the sending of one mail.
	smtpTimeoutDefault = 15 * time.Second
	// smtpQuitMax bounds the good-bye to the server.
	smtpQuitMax = time.Second

	// The circuit opens after so many failures in a row, and lets one mail try after smtpPause.
	smtpFailuresMax = 5
	smtpPause       = 15 * time.Second
)

// SMTPConfig says which server takes mails.
type SMTPConfig struct {
	// URL is that of the server, see ParseSMTPURL.
	URL string
	// RootCAs sign the server's certificate. Default: those of the system.
	RootCAs *x509.CertPool
	// Timeout bounds connecting, and then the sending of one mail. Default 15 s. A dead server keeps a job busy for as long.
	Timeout time.Duration
	// Pause is how long nothing is tried after several failures in a row. Default 15 s.
	Pause   time.Duration
	Logger  *slog.Logger
	Metrics *MailMetrics
}

// SMTP hands mails to a server. A connection is used for many mails, and smtpConnsMax of them at a time.
//
// A mail that the server refuses for good, at its recipient or its content, is an evently.ErrMailRefused. A sign-in or a sender that it
// refuses is not: that is a fault of the settings, which somebody mends while the mails wait. After five failures in
// a row that are not of the mail itself, the circuit opens: for some seconds nothing is tried, and then one mail (evently.ErrMailPaused).
type SMTP struct {
	config  SMTPConfig
	server  *SMTPServer
	breaker *gobreaker.CircuitBreaker[struct{}]

	slots chan struct{}     // one for each connection that may be in use
	idle  chan *smtpSession // connected, in use by nobody
}

var _ evently.Courier = (*SMTP)(nil)

// SMTPServer is what an SMTP URL says.
type SMTPServer struct {
	Host           string
	Port           int
	User, Password string
	// TLS from the first byte (smtps), by STARTTLS, or not at all.
	Implicit, StartTLS bool
}

// ParseSMTPURL reads smtp://user:password@host:port, by default port 587 with STARTTLS, which the server must offer, and
// smtps://user:password@host:port, by default port 465. With ?tls=off, and for a host on the loopback interface without
// ?tls=required, smtp goes without TLS; a password is then sent to a loopback host only. The error does not show the URL.
func ParseSMTPURL(text string) (*SMTPServer, error) {
	parsed, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("it cannot be read as a URL") // the cause shows the password
	}
	server := &SMTPServer{Host: parsed.Hostname(), User: parsed.User.Username()}
	server.Password, _ = parsed.User.Password()
	port := "587"
	switch parsed.Scheme {
	case "smtp":
		server.StartTLS = !loopback(server.Host)
	case "smtps":
		port, server.Implicit = "465", true
	default:
		return nil, errors.New("it does not begin with smtp:// or smtps://")
	}
	if given := parsed.Port(); given != "" {
		port = given
	}
	if server.Port, err = strconv.Atoi(port); err != nil || server.Port < 1 || server.Port > 65535 {
		return nil, errors.New("its port is not 1 to 65535")
	}
	if server.Host == "" || parsed.Path != "" && parsed.Path != "/" {
		return nil, errors.New("it is not of the form smtp://user:password@host:port")
	}
	for name, values := range parsed.Query() {
		switch {
		case name == "tls" && values[0] == "off" && !server.Implicit:
			server.StartTLS = false
		case name == "tls" && values[0] == "required":
			server.StartTLS = !server.Implicit
		default:
			return nil, errors.New("after ? it takes only tls=off or tls=required")
		}
	}
	if server.User != "" && !server.Implicit && !server.StartTLS && !loopback(server.Host) {
		return nil, errors.New("without TLS everybody on the way reads the password")
	}
	return server, nil
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// NewSMTP returns an error that names the setting which is wrong. Nothing is sent before Deliver.
func NewSMTP(config SMTPConfig) (*SMTP, error) {
	server, err := ParseSMTPURL(config.URL)
	if err != nil {
		return nil, fmt.Errorf("smtp_url: %w", err)
	}
	if config.Timeout <= 0 {
		config.Timeout = smtpTimeoutDefault
	}
	if config.Pause <= 0 {
		config.Pause = smtpPause
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	if config.Metrics == nil {
		config.Metrics = NewMailMetrics(prometheus.NewRegistry())
	}
	s := &SMTP{config: config, server: server, slots: make(chan struct{}, smtpConnsMax), idle: make(chan *smtpSession, smtpConnsMax)}
	s.breaker = gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Name: "smtp", Timeout: config.Pause,
		ReadyToTrip: func(counts gobreaker.Counts) bool { return counts.ConsecutiveFailures >= smtpFailuresMax },
		// A mail that is refused, or put off at its recipient, tells that the server works.
		IsSuccessful: func(err error) bool { return err == nil || errors.Is(err, evently.ErrMailRefused) || ofRecipient(err) },
		IsExcluded:   func(err error) bool { return errors.Is(err, context.Canceled) },
		OnStateChange: func(_ string, from, to gobreaker.State) {
			config.Metrics.setBreaker(to)
			config.Logger.Warn("the circuit to the mail server changed", "from", from.String(), "to", to.String())
		},
	})
	config.Metrics.setBreaker(gobreaker.StateClosed)
	return s, nil
}

// Deliver implements evently.Courier.
func (s *SMTP) Deliver(ctx context.Context, message *evently.Message) error {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return fmt.Errorf("wait for a connection to the mail server: %w", ctx.Err())
	}
	begun := time.Now()
	_, err := s.breaker.Execute(func() (struct{}, error) { return struct{}{}, s.send(ctx, message) })
	if errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests) {
		err = fmt.Errorf("%w: %w", evently.ErrMailPaused, err)
	}
	s.config.Metrics.observe(message.Kind, err, time.Since(begun))
	return err
}

// Close says good-bye to the server on connections that nobody uses. It is called after the last Deliver.
func (s *SMTP) Close() {
	for {
		select {
		case session := <-s.idle:
			session.quit()
		default:
			return
		}
	}
}

// send uses a connection that another mail has left, or a new one when there is none or it has gone stale.
func (s *SMTP) send(ctx context.Context, message *evently.Message) error {
	built, err := buildMessage(message)
	if err != nil {
		return fmt.Errorf("%w: %w", evently.ErrMailRefused, err)
	}
	if session := s.takeIdle(); session != nil {
		if err = s.transact(ctx, session, built); !stale(err) {
			return err
		}
	}
	session, err := connectSMTP(ctx, s.server, s.config.RootCAs, s.config.Timeout)
	if err != nil {
		return fmt.Errorf("connect to the mail server: %w", err)
	}
	return s.transact(ctx, session, built)
}

func (s *SMTP) takeIdle() *smtpSession {
	for {
		select {
		case session := <-s.idle:
			if time.Since(session.used) < smtpIdleMax {
				return session
			}
			session.quit()
		default:
			return nil
		}
	}
}

// transact sends one mail, and keeps the connection for the next one if it is good.
func (s *SMTP) transact(ctx context.Context, session *smtpSession, message *gomail.Msg) error {
	err := session.send(ctx, message)
	switch {
	case err == nil, ofRecipient(err):
		session.used = time.Now()
		s.idle <- session // there is room: a session for each slot at the most
	default:
		session.drop()
	}
	if refusedForGood(err) {
		return fmt.Errorf("%w: %w", evently.ErrMailRefused, err)
	}
	return err
}
