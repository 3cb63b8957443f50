package http

import (
	"encoding/json"
	"fmt"
	"mime"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/evently/evently"
)

// jsonDepthMax bounds how deep a body nests.
const jsonDepthMax = 32

// decode reads the request's body into dst, a pointer to a struct, strictly. It refuses with CodeInvalidRequest, naming the
// field: what is not JSON or not UTF-8, a missing body, data after it, unknown and repeated keys, keys in another case, values of
// another type, and null where the Go type is no pointer. A body too large or of another media type is refused too.
func decode(c *gin.Context, dst any) error {
	body, err := jsonBody(c)
	if err != nil {
		return err
	}
	return decodeJSON(body, dst)
}

// decodeChecked is decode of a struct whose fields check has something to say about.
func decodeChecked(c *gin.Context, dst any, check func(fields *evently.FieldErrors)) error {
	if err := decode(c, dst); err != nil {
		return err
	}
	var fields evently.FieldErrors
	check(&fields)
	return fields.Err()
}

// jsonBody returns the request's body when it is there and application/json.
func jsonBody(c *gin.Context) ([]byte, error) {
	// Exactly this is what nearly all clients send; parsing it each time would cost more than the rest of the check.
	if mediaType := c.GetHeader("Content-Type"); mediaType != "application/json" {
		name, parameters, err := mime.ParseMediaType(mediaType)
		charset := parameters["charset"]
		if err != nil || name != "application/json" || (charset != "" && !strings.EqualFold(charset, "utf-8")) {
			return nil, errUnsupportedMediaType
		}
	}
	body := bodyOf(c)
	if len(body) == 0 {
		return nil, invalid("body", "is missing")
	}
	return body, nil
}

// emptyBody refuses a body with content where a route takes none.
func emptyBody(noBody bool, next handler) handler {
	if !noBody {
		return next
	}
	return func(c *gin.Context) error {
		if len(bodyOf(c)) > 0 {
			if err := decode(c, &struct{}{}); err != nil {
				return err
			}
		}
		return next(c)
	}
}

// queried refuses a query that is not well formed or has one of the known parameters twice, where reading it would mean to guess.
func queried(known []string, next handler) handler {
	if len(known) == 0 {
		return next
	}
	return func(c *gin.Context) error {
		seen := make(map[string]int)
		for part := range strings.SplitSeq(c.Request.URL.RawQuery, "&") {
			rawName, rawValue, _ := strings.Cut(part, "=")
			name, nameErr := url.QueryUnescape(rawName)
			_, valueErr := url.QueryUnescape(rawValue)
			if nameErr != nil || valueErr != nil || strings.Contains(part, ";") {
				return invalid(fmt.Sprintf("%.100s", strings.ToValidUTF8(rawName, "?")), "is not well formed in the query")
			}
			if seen[name]++; seen[name] == 2 && slices.Contains(known, name) {
				return invalid(name, "stands twice in the query")
			}
		}
		return next(c)
	}
}

// decodeJSON checks the text along the type of dst, for encoding/json alone is not strict, and has it decoded.
func decodeJSON(text []byte, dst any) error {
	check := checker{lexer: lexer{data: text}}
	if check.value(shapeOf(reflect.TypeOf(dst).Elem())) && !check.ended() {
		check.stop("has data after its end")
	}
	if err := check.fields.Err(); err != nil {
		return err
	}
	if err := json.Unmarshal(text, dst); err != nil {
		return invalid("body", "is not of the form expected")
	}
	return nil
}

// checker walks a JSON text along a shape. Faults of fields are collected; at a fault of the text itself the walk stops.
type checker struct {
	lexer
	path   []step // to the value that is being walked
	fields evently.FieldErrors
}

// step leads from a value to one inside it.
type step struct {
	key   string
	index int // in a list; -1: key leads on
}

// where names the value that is being walked, such as tiers[1].capacity.
func (k *checker) where() string {
	if len(k.path) == 0 {
		return "body"
	}
	var name strings.Builder
	for i, step := range k.path {
		switch {
		case step.index >= 0:
			fmt.Fprintf(&name, "[%d]", step.index)
		case i > 0:
			fmt.Fprintf(&name, ".%.100s", step.key)
		default:
			fmt.Fprintf(&name, "%.100s", step.key)
		}
	}
	return name.String()
}

func (k *checker) refuse(message string) { k.fields.Add(k.where(), message) }

// stop ends the walk with a fault, or goes on without one.
func (k *checker) stop(fault string) (goOn bool) {
	if fault == "" {
		return true
	}
	k.fields = nil // only what stopped the walk is certain
	k.refuse(fault)
	return false
}

// value walks the next value. It returns false when the walk has stopped.
func (k *checker) value(s *shape) (goOn bool) {
	form := formOf(k.peek())
	begin := k.at
	if form&s.forms == 0 {
		if form == 0 {
			return k.stop(k.syntax())
		}
		k.refuse(s.demand)
		s = shapeAny
	}
	switch form {
	case formObject:
		goOn = k.object(s)
	case formList:
		goOn = k.list(s)
	case formText:
		_, _, fault := k.text()
		goOn = k.stop(fault)
	case formNumber:
		_, fault := k.number()
		goOn = k.stop(fault)
	default:
		goOn = k.stop(k.word())
	}
	if goOn && form != formNull && s.holds != nil && !s.holds(k.data[begin:k.at]) {
		k.refuse(s.demand)
	}
	return goOn
}

func (k *checker) object(s *shape) (goOn bool) {
	if !k.open() {
		return false
	}
	if k.take('}') {
		return true
	}
	var seen uint64              // of the fields of a struct
	var keys map[string]struct{} // of any other object
	for {
		raw, escaped, fault := k.text()
		if !k.stop(fault) {
			return false
		}
		next, repeated := s.element, false
		var key string
		if s.fields == nil {
			if keys == nil {
				keys = make(map[string]struct{})
			}
			key = unquote(raw, escaped)
			_, repeated = keys[key]
			keys[key] = struct{}{}
		} else if field, known := s.field(raw, escaped); known {
			key, next, repeated = field.name, field.shape, seen&(1<<field.index) != 0
			seen |= 1 << field.index
		} else {
			key = unquote(raw, escaped)
		}
		k.path = append(k.path, step{key, -1})
		switch {
		case next == nil:
			k.refuse("is not a field of this request")
			next = shapeAny
		case repeated:
			k.refuse("stands twice")
		}
		if !k.take(':') {
			return k.stop(k.syntax())
		}
		if !k.value(next) {
			return false
		}
		k.path = k.path[:len(k.path)-1]
		if k.take('}') {
			return true
		}
		if !k.take(',') {
			return k.stop(k.syntax())
		}
	}
}

func (k *checker) list(s *shape) (goOn bool) {
	if !k.open() {
		return false
	}
	if k.take(']') {
		return true
	}
	for i := 0; ; i++ {
		k.path = append(k.path, step{"", i})
		if !k.value(s.element) {
			return false
		}
		k.path = k.path[:len(k.path)-1]
		if k.take(']') {
			return true
		}
		if !k.take(',') {
			return k.stop(k.syntax())
		}
	}
}

// open consumes the bracket that begins an object or a list.
func (k *checker) open() (goOn bool) {
	k.at++
	return len(k.path) < jsonDepthMax || k.stop("nests too deeply")
}
