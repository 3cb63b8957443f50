package main

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/evently/evently/http"
)

// textValue is any text.
type textValue struct{ field *string }

func (v textValue) set(text string) error {
	*v.field = text
	return nil
}

func (v textValue) String() string { return *v.field }

// wordValue is one of a few words.
type wordValue struct {
	field *string
	words []string
}

func (v wordValue) set(text string) error {
	if !slices.Contains(v.words, text) {
		return errors.New("must be one of " + strings.Join(v.words, ", "))
	}
	*v.field = text
	return nil
}

func (v wordValue) String() string { return *v.field }

// listValue is texts separated by commas.
type listValue struct{ field *[]string }

func (v listValue) set(text string) error {
	*v.field = nil
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			*v.field = append(*v.field, part)
		}
	}
	return nil
}

func (v listValue) String() string { return strings.Join(*v.field, ",") }

// durationValue is a time span such as 90s or 1h30m.
type durationValue struct {
	field    *time.Duration
	min, max time.Duration
}

func (v durationValue) set(text string) error {
	d, err := time.ParseDuration(text)
	if err != nil {
		return errors.New("must be a duration such as 90s, 10m or 1h30m")
	}
	if d < v.min || d > v.max {
		return fmt.Errorf("must be %s to %s", short(v.min), short(v.max))
	}
	*v.field = d
	return nil
}

func (v durationValue) String() string { return short(*v.field) }

// short is d without the zero units that Duration.String ends in: 10m, not 10m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// countValue is a whole number.
type countValue struct {
	field    *int
	min, max int
}

func (v countValue) set(text string) error {
	n, err := strconv.Atoi(text)
	if err != nil || n < v.min || n > v.max {
		return fmt.Errorf("must be a whole number from %d to %d", v.min, v.max)
	}
	*v.field = n
	return nil
}

func (v countValue) String() string { return strconv.Itoa(*v.field) }

// addressValue is host:port.
type addressValue struct{ field *string }

func (v addressValue) set(text string) error {
	_, port, err := net.SplitHostPort(text)
	if err != nil {
		return errors.New("must be host:port, such as 127.0.0.1:8080")
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return errors.New("must end in a port number from 0 to 65535")
	}
	*v.field = text
	return nil
}

func (v addressValue) String() string { return *v.field }

// limitValue is a rate limit such as 10/1m, or off.
type limitValue struct{ field *http.Limit }

func (v limitValue) set(text string) (err error) {
	*v.field, err = http.ParseLimit(text)
	return err
}

func (v limitValue) String() string {
	if *v.field == (http.Limit{}) {
		return off
	}
	return fmt.Sprintf("%d/%s", v.field.Requests, short(v.field.Window))
}
