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

// periodValue is a time span, or off, which is 0.
type periodValue struct {
	field    *time.Duration
	min, max time.Duration
}

func (v periodValue) set(text string) error {
	if text == off {
		*v.field = 0
		return nil
	}
	if err := durationValue(v).set(text); err != nil {
		return fmt.Errorf("%w, or off", err)
	}
	return nil
}

func (v periodValue) String() string {
	if *v.field == 0 {
		return off
	}
	return short(*v.field)
}

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

// shareValue is one of a number: on is one of one, off none, which is 0.
type shareValue struct{ field *int }

const shareMax = 1_000_000

func (v shareValue) set(text string) error {
	switch text {
	case off:
		*v.field = 0
		return nil
	case on:
		*v.field = 1
		return nil
	}
	of, found := strings.CutPrefix(text, "1/")
	n, err := strconv.Atoi(of)
	if !found || err != nil || n < 1 || n > shareMax {
		return fmt.Errorf("must be on, off, or a share such as 1/100, down to 1/%d", shareMax)
	}
	*v.field = n
	return nil
}

func (v shareValue) String() string {
	switch *v.field {
	case 0:
		return off
	case 1:
		return on
	}
	return "1/" + strconv.Itoa(*v.field)
}

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

// keepValue is how long something is kept: a duration, which may be in days such as 400d, or never to remove it, which is 0.
type keepValue struct {
	field *time.Duration
	min   time.Duration
}

const (
	day     = 24 * time.Hour
	keepMax = 36_500 * day
)

func (v keepValue) set(text string) error {
	if text == never {
		*v.field = 0
		return nil
	}
	d, err := time.ParseDuration(text)
	if days, inDays := strings.CutSuffix(text, "d"); inDays {
		var n int64
		n, err = strconv.ParseInt(days, 10, 32)
		d = time.Duration(min(n, int64(keepMax/day)+1)) * day
	}
	if err != nil {
		return errors.New("must be a duration such as 400d or 36h, or never")
	}
	if d < v.min || d > keepMax {
		return fmt.Errorf("must be %s to %s, or never", keepText(v.min), keepText(keepMax))
	}
	*v.field = d
	return nil
}

func (v keepValue) String() string {
	if *v.field == 0 {
		return never
	}
	return keepText(*v.field)
}

// keepText is a time in days where it is a whole number of them, but for a single one.
func keepText(d time.Duration) string {
	if d%day == 0 && d != day {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	return short(d)
}
