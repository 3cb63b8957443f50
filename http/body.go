package http

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/evently/evently"
)

// A request takes none of Config.InFlightMax before its body is there: a client that promises a body and does not send it would hold a
// place for as long as it likes, up to readTimeout. It has a connection, which costs net/http some 20 KiB, and what its body takes so far.
const (
	// bodyBytesMax bounds a request's body.
	bodyBytesMax = 64 << 10
	bodyBytesMin = 512 // the memory that one begins with
	// bodySmallBytes is what a body may take whatever others do. Bookings and sign-ins take far less.
	bodySmallBytes = 4 << 10
	// largeBodiesMax bounds the memory of all larger bodies on their way in, in bytes; what is beyond it is refused with 503 overloaded.
	largeBodiesMax = 64 << 20
	// bodyGrace is how long the answer to a request that is refused without its body waits for the rest of it, which is on its way
	// unless the client is slow or worse: so a refusal does not cost the connection.
	bodyGrace = 50 * time.Millisecond
	// bodyLinger is how long a client that is slower may go on sending when it has been answered, so that it reads the answer and does
	// not find its connection reset.
	bodyLinger = 2 * time.Second
)

// bodyOf returns the request's body. It belongs to the request: copy what must outlive it.
func bodyOf(c *gin.Context) []byte { return exchangeOf(c).body }

// awaited receives the body of a request before anything is done that others wait for.
func (s *Server) awaited(next handler) handler {
	return func(c *gin.Context) error {
		if err := s.receive(c); err != nil {
			return err
		}
		return next(c)
	}
}

// receive reads the body of a request. Its memory grows with what has arrived, and not with what was promised.
func (s *Server) receive(c *gin.Context) error {
	x := exchangeOf(c)
	if x.received {
		return nil
	}
	if c.Request.ContentLength > bodyBytesMax {
		return errBodyTooLarge
	}
	large := int64(0)
	defer func() {
		if large > 0 {
			s.largeBodies.Add(-large)
		}
	}()
	for body := c.Request.Body; body != nil; {
		if len(x.body) == cap(x.body) {
			x.body = slices.Grow(x.body, min(max(bodyBytesMin, len(x.body)), bodyBytesMax+1-len(x.body)))
			if taken := int64(cap(x.body)); taken > bodySmallBytes {
				grown := taken - large
				large = taken
				if s.largeBodies.Add(grown) > largeBodiesMax {
					return evently.ErrOverloaded
				}
			}
		}
		n, err := body.Read(x.body[len(x.body):cap(x.body)])
		x.body = x.body[:len(x.body)+n]
		if len(x.body) > bodyBytesMax {
			return errBodyTooLarge
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return invalid("body", "could not be read to its end")
		}
	}
	x.received = true
	x.conn.move(working)
	return nil
}

// forgo prepares the answer to a request whose body may not have been received: net/http would wait for the rest of it, up to
// readTimeout, before it sends a short answer. Unless the rest comes at once, the answer is the last one on its connection.
func (s *Server) forgo(c *gin.Context) {
	x := exchangeOf(c)
	if x.received {
		return
	}
	control := http.NewResponseController(x.ResponseWriter)
	// Who waits to be told to send a body is not told to. Errors mean that the connection is closed, or none.
	if c.GetHeader("Expect") == "" && control.SetReadDeadline(time.Now().Add(bodyGrace)) == nil && s.receive(c) == nil {
		return
	}
	x.Header()["Connection"] = connectionClose
	_ = control.SetReadDeadline(time.Now().Add(bodyLinger))
}
