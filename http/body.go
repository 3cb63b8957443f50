package http

import (
	"errors"
	"io"
	"net/http"
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
	// bodySmallBytes is the memory that a body may take whatever others do. Bookings and sign-ins take far less.
	bodySmallBytes = 4 << 10
	// largeBodiesMax bounds the memory of all larger bodies, in bytes; what is beyond it is refused with 503 overloaded. Who may send
	// large bodies can use it up: then no events can be created, and seats are booked as ever.
	largeBodiesMax = 64 << 20
	// bodyGrace is how long the answer to a request that is refused without its body waits for the rest of it, which is on its way
	// unless the client is slow or worse: so a refusal does not cost the connection.
	bodyGrace = 50 * time.Millisecond
	// bodyLinger is how long a client that is slower may go on sending when it has been answered, so that it reads the answer and does
	// not find its connection reset. net/http waits for no more than 256 KiB, and not for clients that asked for the end of the connection.
	bodyLinger = 2 * time.Second
)

// How far the body of a request has been received.
const (
	bodyUnread   = iota // or in part
	bodyReceived        // to its end
	bodyGivenUp         // its rest is not read: nothing can follow it on its connection
)

// bodyOf returns the request's body. It belongs to the request: copy what must outlive it.
func bodyOf(c *gin.Context) []byte { return exchangeOf(c).body }

// awaited receives the body of a request before anything is done that others wait for. An endless answer does not keep it.
func (s *Server) awaited(endless bool, next handler) handler {
	return func(c *gin.Context) error {
		if err := s.receive(c); err != nil {
			return err
		}
		if endless {
			s.dropLarge(exchangeOf(c))
		}
		return next(c)
	}
}

// receive reads the body of a request. Its memory grows with what has arrived, and not with what was promised.
func (s *Server) receive(c *gin.Context) error {
	x := exchangeOf(c)
	if x.bodyState == bodyReceived {
		return nil
	}
	x.bodyState = bodyGivenUp // unless all goes well
	if c.Request.ContentLength > bodyBytesMax {
		return errBodyTooLarge
	}
	for body := c.Request.Body; body != nil; {
		if len(x.body) == cap(x.body) && !s.growBody(x) {
			return evently.ErrOverloaded
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
	x.bodyState = bodyReceived
	x.conn.move(working)
	return nil
}

// growBody doubles the memory of a body. It returns false when large bodies have all that they may have.
func (s *Server) growBody(x *exchange) bool {
	size := min(max(2*cap(x.body), bodyBytesMin), bodyBytesMax+1)
	if size > bodySmallBytes {
		more := int64(size) - x.large
		if s.largeBodies.Add(more) > largeBodiesMax {
			s.largeBodies.Add(-more)
			return false
		}
		x.large += more
	}
	x.body = append(make([]byte, 0, size), x.body...)
	return true
}

// dropLarge gives up the memory of a large body.
func (s *Server) dropLarge(x *exchange) {
	if x.large > 0 {
		x.body = nil
		s.largeBodies.Add(-x.large)
		x.large = 0
	}
}

// forgo prepares the answer to a request whose body may not have been received: net/http would wait for the rest of it, up to
// readTimeout, before it sends a short answer. Unless the rest comes at once, the answer is the last one on its connection.
func (s *Server) forgo(c *gin.Context) {
	x := exchangeOf(c)
	if x.bodyState == bodyReceived {
		return
	}
	control := http.NewResponseController(x.ResponseWriter)
	// Who waits to be told to send a body is not told to. Errors of deadlines mean that the connection is closed, or none.
	if x.bodyState == bodyUnread && c.GetHeader("Expect") == "" && control.SetReadDeadline(time.Now().Add(s.bodyGrace)) == nil {
		if n, err := io.CopyN(io.Discard, c.Request.Body, bodyBytesMax+1); n <= bodyBytesMax && errors.Is(err, io.EOF) {
			return
		}
	}
	x.Header()["Connection"] = connectionClose
	_ = control.SetReadDeadline(time.Now().Add(bodyLinger))
}
