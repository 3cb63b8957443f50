package messages

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/evently/evently"
)

// Bounds of one attempt.
const (
	attemptMax       = 15 * time.Second // from the look-up of the name to the header of the response
	responseWaitMax  = time.Second      // for the response's body: its status has decided already
	responseBytesMax = 4 << 10
	headerBytesMax   = 16 << 10
	connectMax       = 10 * time.Second
	idleConnsMax     = 64
	idleMax          = 30 * time.Second
)

const userAgent = "Evently-Webhooks/1"

// webhookClient sends messages.
type webhookClient struct {
	http      *http.Client
	transport *http.Transport
	now       func() time.Time

	attemptMax, responseWaitMax time.Duration
}

func newWebhookClient(targets *Targets, roots *x509.CertPool, now func() time.Time) *webhookClient {
	dialer := net.Dialer{Timeout: connectMax, Control: targets.control, Resolver: targets.Resolver}
	transport := &http.Transport{
		Proxy:                  nil, // one of the environment would be asked to go where this server must not
		DialContext:            dialer.DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    connectMax,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // what is read is what was sent, and no more
		MaxResponseHeaderBytes: headerBytesMax,
		MaxIdleConns:           idleConnsMax, MaxIdleConnsPerHost: workersMax, IdleConnTimeout: idleMax,
	}
	return &webhookClient{
		http: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		transport: transport, now: now, attemptMax: attemptMax, responseWaitMax: responseWaitMax,
	}
}

// Faults of an attempt.
const (
	faultTimeout    = "timeout"         // no answer within attemptMax
	faultName       = "dns"             // the name has no address
	faultAddress    = "private_address" // see Targets
	faultConnection = "connection"      // refused, or broken
	faultTLS        = "tls"
	faultProtocol   = "protocol" // the answer is not HTTP, or too large a header
	faultRedirect   = "redirect" // 3xx; they are not followed
	faultGone       = "gone"     // 410
	faultStatus     = "status"   // another one than 2xx
	faultUnsigned   = "secret"   // the signing secret cannot be read
)

// outcome is what came of an attempt.
type outcome struct {
	evently.DeliveryAttempt
	retryAfter time.Duration // that the receiver asks for; 0: it does not
	abandoned  bool          // ctx ended: nobody knows
}

// send makes one attempt. The status of the response decides as soon as it is there.
func (c *webhookClient) send(ctx context.Context, lane *evently.WebhookLane, delivery *evently.Delivery) (o outcome) {
	o.At = c.now()
	defer func() { o.LatencyMS = c.now().Sub(o.At).Milliseconds() }()
	if len(lane.Secrets) == 0 {
		o.Fault = faultUnsigned
		return o
	}
	attempt, cancel := context.WithTimeout(ctx, c.attemptMax)
	defer cancel()
	request, err := http.NewRequestWithContext(attempt, http.MethodPost, lane.URL, bytes.NewReader(delivery.Payload))
	if err != nil {
		o.Fault = faultProtocol // the URL was checked before it was stored
		return o
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", userAgent)
	sign(request.Header, delivery.ID, o.At, delivery.Payload, lane.Secrets)
	response, err := c.http.Do(request)
	if err != nil {
		o.Fault, o.abandoned = faultOf(err), ctx.Err() != nil
		return o
	}
	defer response.Body.Close()
	late := time.AfterFunc(c.responseWaitMax, cancel)
	defer late.Stop()
	// What cannot be read is not needed.
	text, _ := io.ReadAll(io.LimitReader(response.Body, responseBytesMax))
	o.HTTPCode, o.Excerpt = response.StatusCode, excerpt(text, lane.Secrets)
	switch {
	case o.HTTPCode >= 200 && o.HTTPCode < 300:
	case o.HTTPCode == http.StatusGone:
		o.Fault = faultGone
	case o.HTTPCode >= 300 && o.HTTPCode < 400:
		o.Fault = faultRedirect
	default:
		o.Fault, o.retryAfter = faultStatus, retryAfter(response.Header.Get("Retry-After"), c.now())
	}
	return o
}

// faultOf says in a word what an error of http.Client means. The error itself tells the URL, which may hold a secret, and what the
// network around this server looks like.
func faultOf(err error) string {
	var network net.Error
	var name *net.DNSError
	var operation *net.OpError
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	switch {
	case errors.Is(err, errPrivateAddress):
		return faultAddress
	case errors.As(err, &name):
		return faultName
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return faultTimeout
	case errors.As(err, &certificate), errors.As(err, &record), errors.As(err, &alert), errors.Is(err, http.ErrSchemeMismatch):
		return faultTLS
	case errors.As(err, &operation), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return faultConnection
	}
	return faultProtocol
}

// retryAfter reads the header of that name: seconds, or a date. It is 0 when there is none.
func retryAfter(text string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseInt(text, 10, 32); err == nil {
		return max(time.Duration(seconds)*time.Second, 0)
	}
	if date, err := http.ParseTime(text); err == nil {
		return max(date.Sub(now), 0)
	}
	return 0
}

// excerpt is the begin of a response, fit to be stored and shown: of any bytes a receiver may send, and without the secrets that it
// knows.
func excerpt(body []byte, secrets [][]byte) string {
	text := strings.ToValidUTF8(string(body), "\uFFFD")
	for _, secret := range secrets {
		text = strings.ReplaceAll(text, base64.StdEncoding.EncodeToString(secret), "[secret]")
	}
	text = strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
	if len(text) > evently.WebhookExcerptBytesMax {
		text = strings.ToValidUTF8(text[:evently.WebhookExcerptBytesMax], "")
	}
	return text
}
