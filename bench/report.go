package bench

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// ReferenceName is the design that the others are compared with.
const ReferenceName = "evently"

// section is what one workload showed at one number of connections, or in open loops: a block of the table and of the page.
type section struct {
	Workload    Workload
	Connections int  // of closed loops
	Open        bool // requests were scheduled; each design has its own rate and number of connections
	Rounds      int
	Seconds     float64 // of a round
	Lines       []line  // in the order of the designs
}

// line is what a section tells of one design. Only one that is Valid has figures.
type line struct {
	Design
	Summary
	Slower float64  // the reference's rate over this one's: the median of the rounds' ratios; 0: not known
	RSS    int64    // bytes: the most of all rounds
	Failed string   // what the audits found
	Notes  []string // what a reader of the figures has to know
	rounds []Round
}

// Valid reports whether there are figures, and all audits passed.
func (l *line) Valid() bool { return l.Absent == "" && l.Failed == "" }

// key is what a Summary is of.
type key struct {
	design, workload string
	connections      int
	rate             float64
}

func (s *Summary) key() key { return key{s.Design, s.Workload, s.Connections, s.Rate} }
func (r *Round) key() key   { return key{r.Design, r.Workload, r.Connections, r.Rate} }

// sections orders what was measured: by workload, closed loops first, by connections.
func (r *Report) sections() []section {
	rounds := make(map[key][]Round)
	for _, round := range r.Rounds {
		rounds[round.key()] = append(rounds[round.key()], round)
	}
	type place struct {
		connections int
		open        bool
	}
	var all []section
	for _, workload := range r.workloads() {
		found := make(map[place]*section)
		for _, summary := range r.Summary {
			if summary.Workload != workload.Name {
				continue
			}
			at := place{summary.Connections, false}
			if summary.Rate > 0 {
				at = place{0, true}
			}
			if found[at] == nil {
				found[at] = &section{Workload: workload, Connections: at.connections, Open: at.open}
			}
			found[at].add(r.line(&workload, summary, rounds))
		}
		ordered := slices.SortedFunc(maps.Keys(found), func(a, b place) int {
			if a.open != b.open {
				return map[bool]int{false: -1, true: 1}[a.open]
			}
			return cmp.Compare(a.connections, b.connections)
		})
		for _, at := range ordered {
			all = append(all, *found[at])
		}
	}
	for i := range all {
		r.complete(&all[i], len(all) == 1)
	}
	return all
}

func (s *section) add(l line) {
	s.Lines = append(s.Lines, l)
	s.Rounds = max(s.Rounds, l.Rounds)
	for _, round := range l.rounds {
		s.Seconds = max(s.Seconds, round.Seconds)
	}
}

// complete puts the lines in the order of the designs and adds the absent ones where designs are compared.
func (r *Report) complete(s *section, only bool) {
	if only || len(s.Lines) > 1 {
		for _, design := range r.Designs {
			if design.Absent != "" {
				s.Lines = append(s.Lines, line{Design: design})
			}
		}
	}
	order := func(l line) int {
		at := slices.IndexFunc(r.Designs, func(d Design) bool { return d.Name == l.Design.Name })
		return (at + len(r.Designs) + 1) % (len(r.Designs) + 1) // unknown ones last
	}
	slices.SortStableFunc(s.Lines, func(a, b line) int {
		return cmp.Or(cmp.Compare(order(a), order(b)), cmp.Compare(a.Connections, b.Connections), cmp.Compare(a.Rate, b.Rate))
	})
}

// workloads are those of the report and those that only its summaries know.
func (r *Report) workloads() []Workload {
	all := slices.Clone(r.Workload)
	for _, summary := range r.Summary {
		if !slices.ContainsFunc(all, func(w Workload) bool { return w.Name == summary.Workload }) {
			all = append(all, Workload{Name: summary.Workload, Title: summary.Workload, Counts: "answered"})
		}
	}
	return all
}

func (r *Report) design(name string) Design {
	for _, design := range r.Designs {
		if design.Name == name {
			if design.Title == "" {
				design.Title = name
			}
			return design
		}
	}
	return Design{Name: name, Title: name}
}

func (r *Report) line(workload *Workload, summary Summary, rounds map[key][]Round) line {
	l := line{Design: r.design(summary.Design), Summary: summary, rounds: rounds[summary.key()]}
	l.Absent = "" // of this workload there are figures
	var failed, refused, late, unfinished float64
	demand, met, example := workload.demand(), workload.demand(), ""
	audits := Audit{}
	for i := range l.rounds {
		round := &l.rounds[i]
		audits.add(&round.Audit)
		l.RSS = max(l.RSS, round.ServerRSS)
		failed += float64(round.Outcomes["failed"])
		refused += float64(round.Outcomes["refused"])
		met = min(met, round.answered())
		example = cmp.Or(example, round.Failure)
		late = max(late, round.SentLate)
		unfinished += float64(round.Unfinished)
	}
	if !summary.Passed || !audits.Passed() {
		l.Failed = audits.verdict()
		return l
	}
	if l.Name != ReferenceName {
		l.Slower = slower(rounds[key{ReferenceName, summary.Workload, summary.Connections, summary.Rate}], l.rounds)
	}
	if failed > 0 {
		l.note("%s requests failed, such as: %s", count(failed), example)
	}
	if refused > 0 && workload.Counts == CountsBooked {
		l.note("sold out before the end: %s bookings were refused and do not count", count(refused))
	}
	if met < demand {
		l.note("the demand was not met in time: %s of %s requests were answered", count(float64(met)), count(float64(demand)))
	}
	if unfinished > 0 {
		l.note("overloaded: no connection got to %s scheduled requests", count(unfinished))
	}
	if late >= lateShareMin {
		l.note("%.0f %% of the requests of a round were sent over 1 ms late; latency counts from the schedule", late*100)
	}
	return l
}

// lateShareMin is the share of late requests from which a report speaks of them.
const lateShareMin = 0.01

func (l *line) note(format string, args ...any) {
	l.Notes = append(l.Notes, fmt.Sprintf(format, args...))
}

// slower is the median over rounds of the reference's rate over another one's; 0 if the reference has no result.
func slower(reference, other []Round) float64 {
	var ratios []float64
	for _, a := range reference {
		if !a.Audit.Passed() {
			return 0
		}
		for _, b := range other {
			if a.Round == b.Round && a.Done > 0 && b.Done > 0 {
				ratios = append(ratios, a.Done/b.Done)
			}
		}
	}
	return median(ratios)
}

func (a *Audit) add(b *Audit) {
	a.Lost += b.Lost
	a.Oversold += b.Oversold
	a.DoubledKeys += b.DoubledKeys
	a.Miscounted += b.Miscounted
	a.Faults = append(a.Faults, b.Faults...)
}

// verdict says what an audit found.
func (a *Audit) verdict() string {
	var found []string
	for _, kind := range []struct {
		count int
		what  string
	}{
		{a.Lost, "acknowledged bookings lost"},
		{a.Oversold, "seats oversold"},
		{a.DoubledKeys, "keys doubled"},
		{a.Miscounted, "events miscounted"},
	} {
		if kind.count > 0 {
			found = append(found, count(float64(kind.count))+" "+kind.what)
		}
	}
	if len(a.Faults) > 0 {
		found = append(found, a.Faults[0])
	}
	if len(found) == 0 {
		return "the audit did not pass"
	}
	return strings.Join(found, ", ")
}

// Faults are the failed audits of durable designs, and ceilings that could not be measured, a line each.
func (r *Report) Faults() []string {
	var faults []string
	for _, s := range r.sections() {
		for _, l := range s.Lines {
			if l.Failed != "" && (l.Durable || l.Ceiling) {
				faults = append(faults, fmt.Sprintf("%s, %s: %s", l.Title, s.Title(), l.Failed))
			}
		}
	}
	return faults
}

// units are what workloads count, as nouns.
var units = map[string][2]string{
	"booked": {"booking", "bookings"}, "refused": {"refusal", "refusals"}, "read": {"read", "reads"}, "answered": {"answer", "answers"},
}

// unit is what Done counts, one and many of it.
func (s *section) unit() (one, many string) {
	names, found := units[s.Workload.Counts]
	if !found {
		names = units["answered"]
	}
	return names[0], names[1]
}

// Title says what was done.
func (s *section) Title() string {
	name := cmp.Or(s.Workload.Title, s.Workload.Name)
	if s.Open {
		return name + ", open loop"
	}
	return fmt.Sprintf("%s, closed loop of %d %s", name, s.Connections, plural(s.Connections, "connection"))
}

// Extent is how long was measured.
func (s *section) Extent() string {
	most := ""
	if s.Workload.Demand > 0 {
		most = "at most "
	}
	return fmt.Sprintf("%d %s of %s%s s", s.Rounds, plural(s.Rounds, "round"), most, figure(s.Seconds))
}

func plural(n int, noun string) string {
	if n == 1 {
		return noun
	}
	return noun + "s"
}

// WriteJSON writes the report with the figures of failed audits taken out.
func (r *Report) WriteJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r.withheld())
}

// withheld is the report without the figures of failed audits. What was counted stays: it tells what went wrong.
func (r *Report) withheld() *Report {
	out := *r
	out.Rounds = slices.Clone(r.Rounds)
	failed := make(map[key]bool)
	for i := range out.Rounds {
		round := &out.Rounds[i]
		if round.Audit.Passed() {
			continue
		}
		failed[round.key()] = true
		round.Done, round.Latency, round.CPU, round.Commits = 0, Latency{}, CPU{}, 0
		round.Quantiles, round.Timeline = nil, nil
	}
	out.Summary = slices.Clone(r.Summary)
	for i := range out.Summary {
		s := &out.Summary[i]
		if s.Passed && !failed[s.key()] {
			continue
		}
		*s = Summary{Design: s.Design, Workload: s.Workload, Connections: s.Connections, Rate: s.Rate, Rounds: s.Rounds}
	}
	return &out
}

// count is a whole number with separators.
func count(v float64) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return "?"
	}
	digits := strconv.FormatFloat(math.Abs(v), 'f', 0, 64)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	if v < 0 && digits != "0" {
		digits = "-" + digits
	}
	return digits
}

// figure is a number with three significant digits, and no fewer than its whole part has.
func figure(v float64) string {
	switch size := math.Abs(v); {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "?"
	case v == 0:
		return "0"
	case size >= 99.95:
		return count(v)
	case size >= 9.995:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case size >= 0.00995:
		return strconv.FormatFloat(v, 'f', 2, 64)
	default:
		return strconv.FormatFloat(v, 'g', 2, 64)
	}
}

// plain is a text on one line without control characters, which could steer a terminal.
func plain(text string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case unicode.IsSpace(c):
			return ' '
		case !unicode.IsPrint(c):
			return '?'
		}
		return c
	}, text)
}
