package bench

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Endpoint is where an API is served.
type Endpoint struct {
	prefix string // of all paths
	host   string // of the Host field
	addr   string // host:port to connect to
	secure bool
}

// ParseEndpoint reads the base URL of an API: http or https, a host, perhaps a port and a path.
func ParseEndpoint(base string) (Endpoint, error) {
	u, err := url.Parse(base)
	if err != nil {
		return Endpoint{}, fmt.Errorf("parse API's URL: %w", err)
	}
	if u.User != nil { // it would not be sent, and stand in reports
		return Endpoint{}, errors.New("parse API's URL: it must have no user and password")
	}
	ports := map[string]string{"http": "80", "https": "443"}
	port, known := ports[u.Scheme]
	if !known || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" {
		return Endpoint{}, fmt.Errorf("parse API's URL %q: not of the form http://host:port or https://host/path", base)
	}
	if u.Port() != "" {
		port = u.Port()
	}
	return Endpoint{
		prefix: strings.TrimRight(u.EscapedPath(), "/"), host: u.Host, addr: net.JoinHostPort(u.Hostname(), port), secure: u.Scheme == "https",
	}, nil
}

// dial connects to the API.
func (e Endpoint) dial(ctx context.Context) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: requestTimeout}
	if e.secure {
		return (&tls.Dialer{NetDialer: dialer}).DialContext(ctx, "tcp", e.addr)
	}
	return dialer.DialContext(ctx, "tcp", e.addr)
}

const (
	// requestTimeout bounds a request. It can be less by deadlineSlack: setting a deadline costs more than to see that one is set.
	requestTimeout = 30 * time.Second
	deadlineSlack  = 5 * time.Second

	answerBytesStart = 4 << 10
	answerBytesMax   = 1 << 20 // of an answer, head and body
)

// Client sends prepared HTTP/1.1 requests over one keep-alive connection, one after the other. It understands just what answers
// need, so that on a machine shared with the server most of the time goes to the server. It is not safe for concurrent use.
type Client struct {
	dial     func(context.Context) (net.Conn, error)
	conn     net.Conn    // nil: to be dialled
	unbind   func() bool // from the context
	deadline time.Time
	buf      []byte // what was received of an answer
	body     []byte // of an answer in chunks
}

// Answer is a response. Its body is valid until the next request.
type Answer struct {
	Status   int
	Replayed bool // the first answer to the key, again
	Body     []byte
}

// Client returns a client that connects with its first request.
func (e Endpoint) Client() *Client { return newClient(e.dial) }

func newClient(dial func(context.Context) (net.Conn, error)) *Client {
	return &Client{dial: dial, buf: make([]byte, 0, answerBytesStart)}
}

// unreachable is the error of a request that was not sent, because there was no connection.
type unreachable struct{ error }

func (u unreachable) Unwrap() error { return u.error }

// Connect connects unless the client is connected. The connection is closed when ctx ends.
func (c *Client) Connect(ctx context.Context) error {
	if c.conn != nil {
		return nil
	}
	conn, err := c.dial(ctx)
	if err != nil {
		return unreachable{err}
	}
	c.conn, c.deadline = conn, time.Time{}
	c.unbind = context.AfterFunc(ctx, func() { _ = conn.Close() }) // whoever uses it gets an error
	return nil
}

// Close closes the connection.
func (c *Client) Close() error {
	if c.conn == nil {
		return nil
	}
	c.unbind()
	err := c.conn.Close()
	c.conn = nil
	if errors.Is(err, net.ErrClosed) { // by the end of the context
		return nil
	}
	return err
}

// Do sends a whole request, head and body, and returns the answer. After an error the outcome is unknown, and the next request
// has a new connection.
func (c *Client) Do(ctx context.Context, request []byte) (Answer, error) {
	if err := c.Connect(ctx); err != nil {
		return Answer{}, err
	}
	answer, again, err := c.exchange(request)
	if err != nil || !again {
		err = errors.Join(err, c.Close())
	}
	return answer, err
}

// exchange also returns whether the connection can be used again.
func (c *Client) exchange(request []byte) (answer Answer, again bool, err error) {
	if now := time.Now(); c.deadline.Sub(now) < requestTimeout-deadlineSlack {
		c.deadline = now.Add(requestTimeout)
		if err := c.conn.SetDeadline(c.deadline); err != nil {
			return Answer{}, false, err
		}
	}
	if _, err := c.conn.Write(request); err != nil {
		return Answer{}, false, err
	}
	c.buf = c.buf[:0]
	end := -1
	for searched := 0; end < 0; {
		if err := c.fill(); err != nil {
			return Answer{}, false, err
		}
		if end = bytes.Index(c.buf[searched:], headEnd); end >= 0 {
			end += searched + len(headEnd)
		}
		searched = max(0, len(c.buf)-len(headEnd)+1)
	}
	h, err := parseHead(c.buf[:end])
	if err != nil {
		return Answer{}, false, err
	}
	answer = Answer{Status: h.status, Replayed: h.replayed}
	switch {
	case h.chunked:
		answer.Body, end, err = c.chunks(end)
	case h.length >= 0:
		for err == nil && len(c.buf) < end+h.length {
			err = c.fill()
		}
		if err == nil {
			answer.Body, end = c.buf[end:end+h.length], end+h.length
		}
	case h.status != 204 && h.status != 304:
		err = errors.New("answer without a Content-Length")
	}
	if err == nil && end != len(c.buf) {
		err = fmt.Errorf("%d bytes behind the answer", len(c.buf)-end)
	}
	return answer, !h.last, err
}

// fill receives some more of an answer.
func (c *Client) fill() error {
	if len(c.buf) == cap(c.buf) {
		if len(c.buf) >= answerBytesMax {
			return fmt.Errorf("answer of more than %d bytes", answerBytesMax)
		}
		c.buf = append(make([]byte, 0, 2*cap(c.buf)), c.buf...)
	}
	n, err := c.conn.Read(c.buf[len(c.buf):cap(c.buf)])
	c.buf = c.buf[:len(c.buf)+n]
	if n > 0 {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// chunks puts a body together that begins at a place of the buffer, and returns where it ends.
func (c *Client) chunks(at int) (body []byte, end int, err error) {
	c.body = c.body[:0]
	for {
		line, next, err := c.line(at)
		if err != nil {
			return nil, 0, err
		}
		size, _, _ := bytes.Cut(line, []byte(";"))
		length, err := strconv.ParseUint(string(bytes.TrimSpace(size)), 16, 31)
		if err != nil {
			return nil, 0, fmt.Errorf("chunk %.40q", line)
		}
		at = next
		if length == 0 {
			break
		}
		for len(c.buf) < at+int(length)+2 {
			if err := c.fill(); err != nil {
				return nil, 0, err
			}
		}
		c.body = append(c.body, c.buf[at:at+int(length)]...)
		at += int(length) + 2
	}
	for { // trailers
		line, next, err := c.line(at)
		if err != nil || len(line) == 0 {
			return c.body, next, err
		}
		at = next
	}
}

// line returns the line at a place of the buffer and where the next one begins.
func (c *Client) line(at int) (line []byte, next int, err error) {
	for {
		if i := bytes.IndexByte(c.buf[at:], '\n'); i >= 0 {
			return bytes.TrimRight(c.buf[at:at+i], "\r"), at + i + 1, nil
		}
		if err := c.fill(); err != nil {
			return nil, 0, err
		}
	}
}

var headEnd = []byte("\r\n\r\n")

// head is what matters of the head of an answer.
type head struct {
	status   int
	length   int // -1: not told
	chunked  bool
	last     bool // the server closes the connection
	replayed bool
}

func parseHead(text []byte) (head, error) {
	h := head{length: -1}
	line, rest, _ := bytes.Cut(text, []byte("\r\n"))
	status, err := 0, error(nil)
	if len(line) >= 12 && bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		status, err = strconv.Atoi(string(line[9:12]))
	}
	if err != nil || status < 200 {
		return h, fmt.Errorf("status line %.80q", line)
	}
	h.status = status
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		colon := bytes.IndexByte(line, ':')
		// The lengths of the names sort most others out.
		switch colon {
		case len("Content-Length"):
			if bytes.EqualFold(line[:colon], []byte("Content-Length")) {
				length, err := strconv.ParseUint(string(bytes.TrimSpace(line[colon+1:])), 10, 31)
				if err != nil {
					return h, fmt.Errorf("header %.80q", line)
				}
				h.length = int(length)
			}
		case len("Transfer-Encoding"):
			h.chunked = h.chunked || bytes.EqualFold(line[:colon], []byte("Transfer-Encoding"))
		case len("Connection"):
			h.last = h.last || bytes.EqualFold(line[:colon], []byte("Connection")) && bytes.EqualFold(bytes.TrimSpace(line[colon+1:]), []byte("close"))
		case len("Idempotency-Replayed"):
			h.replayed = h.replayed || bytes.EqualFold(line[:colon], []byte("Idempotency-Replayed"))
		}
	}
	return h, nil
}
