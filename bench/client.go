package bench

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// Client sends prepared HTTP/1.1 requests over one keep-alive connection. It understands just what an answer with a
// Content-Length needs, so that on a machine shared with the server most of the time goes to the server.
// It is not safe for concurrent use.
type Client struct {
	conn   net.Conn
	reader *bufio.Reader
	body   []byte
}

// requestTimeout bounds one request.
const requestTimeout = 30 * time.Second

// Dial connects to a server at host:port.
func Dial(addr string) (*Client, error) {
	conn, err := net.DialTimeout("tcp", addr, requestTimeout)
	if err != nil {
		return nil, err
	}
	return &Client{conn: conn, reader: bufio.NewReader(conn)}, nil
}

// Close closes the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Do sends a whole request, head and body, and returns the answer. The body is valid until the next call.
func (c *Client) Do(request []byte) (status int, body []byte, err error) {
	if err := c.conn.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return 0, nil, err
	}
	if _, err := c.conn.Write(request); err != nil {
		return 0, nil, err
	}
	line, err := c.reader.ReadSlice('\n')
	if err != nil {
		return 0, nil, err
	}
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return 0, nil, fmt.Errorf("status line %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, nil, fmt.Errorf("status line %q", line)
	}
	length, err := c.head()
	if err != nil {
		return 0, nil, err
	}
	if cap(c.body) < length {
		c.body = make([]byte, length)
	}
	c.body = c.body[:length]
	_, err = io.ReadFull(c.reader, c.body)
	return status, c.body, err
}

// head reads the header fields and returns the length of the body.
func (c *Client) head() (length int, err error) {
	length = -1
	for {
		line, err := c.reader.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			if length < 0 {
				return 0, errors.New("answer without a Content-Length")
			}
			return length, nil
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		if bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, fmt.Errorf("header %q", line)
			}
		}
	}
}

// Book builds a request for one seat, with a key that With writes into it.
type Book struct {
	request []byte
	key     []byte // part of request
}

const keyDigits = 16

// NewBook prepares bookings of an event by the holder of a token.
func NewBook(host, event, token string) *Book {
	const body = `{"quantity":1}`
	head := fmt.Sprintf("POST /events/%s/book HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"+
		"Content-Length: %d\r\nIdempotency-Key: ", event, host, token, len(body))
	request := append([]byte(head), bytes.Repeat([]byte{'0'}, keyDigits)...)
	end := len(request)
	request = append(request, "\r\n\r\n"+body...)
	return &Book{request, request[end-keyDigits : end]}
}

// With returns the request with a key, valid until the next call.
func (b *Book) With(key uint64) []byte {
	text := strconv.AppendUint(nil, key, 16)
	clear := copy(b.key, bytes.Repeat([]byte{'0'}, keyDigits-len(text)))
	copy(b.key[clear:], text)
	return b.request
}
