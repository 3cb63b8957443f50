package bench

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// tableWidth is that of the table in columns.
const tableWidth = 120

// column is one of a table. A line without figures has none of them but the first.
type column struct {
	group string // over columns that stand side by side
	name  string
	width int // in characters, without the space before; the first column is aligned to the left
	text  func(l *line) string
}

// columns are those of a section.
func (s *section) columns() []column {
	one, many := s.unit()
	milliseconds := func(pick func(*Latency) float64) func(*line) string {
		return func(l *line) string { return figure(pick(&l.Latency)) }
	}
	microseconds := func(pick func(*CPU) float64) func(*line) string {
		return func(l *line) string { return unlessZero(pick(&l.CPU), figure) }
	}
	list := []column{
		{"", "design", 23, (*line).label},
		{many + "/s", "median", 10, func(l *line) string { return count(l.Done) }},
		{many + "/s", "spread", 15, (*line).spread},
		{"of the", "ceiling", 7, func(l *line) string { return unlessZero(l.OfCeiling, ratio) }},
		{ReferenceName, "is", 8, func(l *line) string { return unlessZero(l.Slower, func(v float64) string { return figure(v) + "x" }) }},
		{"latency, ms", "p50", 6, milliseconds(func(t *Latency) float64 { return t.P50 })},
		{"latency, ms", "p99", 6, milliseconds(func(t *Latency) float64 { return t.P99 })},
		{"latency, ms", "p99.9", 6, milliseconds(func(t *Latency) float64 { return t.P999 })},
		{"CPU, µs per " + one, "server", 7, microseconds(func(c *CPU) float64 { return c.Server })},
		{"CPU, µs per " + one, "data", 6, microseconds(func(c *CPU) float64 { return c.Postgres + c.Redis })},
		{"CPU, µs per " + one, "load", 6, microseconds(func(c *CPU) float64 { return c.Load })},
		{"commits", "/s", 7, func(l *line) string { return unlessZero(l.Commits, count) }},
	}
	if s.Open {
		list[3] = column{"", "asked/s", 7, func(l *line) string { return count(l.Rate) }}
		list[4] = column{"connec-", "tions", 8, func(l *line) string { return count(float64(l.Connections)) }}
	}
	return slices.DeleteFunc(list, func(c column) bool { return s.lacks(&c) })
}

// lacks reports whether no line knows a figure: it was not measured, or there is nothing to compare with.
func (s *section) lacks(c *column) bool {
	valid := false
	for i := range s.Lines {
		if l := &s.Lines[i]; l.Valid() {
			valid = true
			if c.text(l) != unknown {
				return false
			}
		}
	}
	return valid
}

// unknown stands for a figure that there is not.
const unknown = "-"

// spread is what the rounds lie between.
func (l *line) spread() string {
	if l.Rounds < 2 {
		return unknown
	}
	return count(l.DoneMin) + "-" + count(l.DoneMax)
}

func ratio(v float64) string { return strconv.FormatFloat(v, 'f', 2, 64) }

func unlessZero(v float64, text func(float64) string) string {
	if v == 0 {
		return unknown
	}
	return text(v)
}

// Marks of designs in a table.
const (
	markCeiling    = "(c)"
	markNotDurable = "(!)"
)

// label is the design's title with its marks.
func (l *line) label() string {
	text := l.Title
	if l.Ceiling {
		text += " " + markCeiling
	} else if !l.Durable {
		text += " " + markNotDurable
	}
	return text
}

// instead is what a line says that has no figures.
func (l *line) instead() string {
	switch {
	case l.Absent != "":
		return "absent: " + l.Absent
	case l.Failed != "":
		return "FAILED its audit: " + l.Failed
	}
	return ""
}

// WriteTable writes the report as text of at most 120 columns.
func (r *Report) WriteTable(w io.Writer) error {
	t := &table{}
	for _, text := range r.heading() {
		t.wrap("", text)
	}
	sections := r.sections()
	for i := range sections {
		s := &sections[i]
		t.printf("\n%s, %s\n", plain(s.Title()), s.Extent())
		if s.Workload.About != "" {
			t.wrap("", s.Workload.About)
		}
		t.lines(s.columns(), s.Lines)
	}
	if spendings := r.spendings(sections); len(spendings) > 0 {
		t.printf("\n%s\n", spendingTitle)
		t.wrap("", r.spendingNote())
		for _, s := range spendings {
			t.printf("\n%s\n", plain(s.Title))
			t.lines(s.Columns, s.Lines)
		}
	}
	if len(sections) > 0 {
		t.printf("\nDesigns\n")
		for i := range r.Designs {
			d := &r.Designs[i]
			t.wrap("  ", cmp.Or(d.Title, d.Name)+": "+d.explained())
		}
	} else {
		t.printf("\nNothing was measured.\n")
		for _, design := range r.Designs {
			if design.Absent != "" {
				t.wrap("  ", design.Title+" is absent: "+design.Absent)
			}
		}
	}
	t.printf("\n")
	for _, note := range legend(sections) {
		t.wrap("", note)
	}
	_, err := io.WriteString(w, t.text.String())
	return err
}

// legend tells what the tables do not say themselves.
func legend(sections []section) (notes []string) {
	ceiling, loose := false, false
	for i := range sections {
		for j := range sections[i].Lines {
			l := &sections[i].Lines[j]
			ceiling = ceiling || l.Ceiling
			loose = loose || !l.Ceiling && !l.Durable
		}
	}
	if ceiling {
		notes = append(notes, markCeiling+" books nothing: what the layers around a booking cost by themselves. The ceiling is that of noop.")
	}
	if loose {
		notes = append(notes, markNotDurable+" not durable: a crash loses bookings that were acknowledged.")
	}
	if len(sections) > 0 {
		notes = append(notes, "Figures are medians of the rounds, the spread is least-most; data is Postgres and Redis; µs are microseconds.")
	}
	return notes
}

// heading is where and how was measured.
func (r *Report) heading() []string {
	m := &r.Machine
	build := "Evently " + r.Version
	if r.Commit != "" {
		build += ", commit " + r.Commit
	}
	machine := fmt.Sprintf("%s, %d %s, %s MB; %s; Go %s",
		m.CPU, m.Cores, plural(m.Cores, "core"), count(float64(m.MemoryMB)), m.OS, strings.TrimPrefix(m.Go, "go"))
	if m.Postgres != "" {
		machine += "; Postgres " + m.Postgres
	} else {
		machine = "Load from " + machine
	}
	if m.Redis != "" {
		machine += "; Redis " + m.Redis
	}
	lines := []string{
		r.Command,
		fmt.Sprintf("%s, %s, took %s", build, r.Began.UTC().Format("2006-01-02 15:04 UTC"), r.took()),
		machine,
	}
	for _, text := range []string{r.Settings, r.Method} {
		if text != "" {
			lines = append(lines, text)
		}
	}
	return lines
}

func (r *Report) took() string {
	return time.Duration(r.Seconds * float64(time.Second)).Round(time.Second).String()
}

// table is text that is being written.
type table struct{ text strings.Builder }

func (t *table) printf(format string, args ...any) { fmt.Fprintf(&t.text, format, args...) }

// wrap writes a text behind a prefix, in lines of at most tableWidth, which are as far indented as the prefix is long. Longer words
// are cut into pieces.
func (t *table) wrap(prefix, text string) {
	indent := strings.Repeat(" ", utf8.RuneCountInString(prefix))
	t.printf("%s", prefix)
	used := len(indent)
	for word := range strings.FieldsSeq(plain(text)) {
		for word != "" {
			piece := []rune(word)
			piece = piece[:min(len(piece), tableWidth-len(indent))]
			word = word[len(string(piece)):]
			switch {
			case used == len(indent):
			case used+1+len(piece) > tableWidth:
				t.printf("\n%s", indent)
				used = len(indent)
			default:
				t.printf(" ")
				used++
			}
			t.printf("%s", string(piece))
			used += len(piece)
		}
	}
	t.printf("\n")
}

func (t *table) lines(columns []column, lines []line) {
	t.groups(columns)
	t.row(columns, func(c *column) string { return c.name })
	for i := range lines {
		l := &lines[i]
		if !l.Valid() {
			t.wrap(pad(fit(l.label(), columns[0].width), columns[0].width, false)+"  ", l.instead())
			continue
		}
		t.row(columns, func(c *column) string { return c.text(l) })
		for _, note := range l.Notes {
			t.wrap("    ", note)
		}
	}
}

// groups writes the names of groups, each over the right end of its columns.
func (t *table) groups(columns []column) {
	var text strings.Builder
	for i := 0; i < len(columns); {
		width, end := columns[i].width, i+1
		for ; end < len(columns) && columns[end].group != "" && columns[end].group == columns[i].group; end++ {
			width += 1 + columns[end].width
		}
		if i > 0 {
			text.WriteByte(' ')
		}
		text.WriteString(pad(fit(columns[i].group, width), width, true))
		i = end
	}
	t.printf("%s\n", strings.TrimRight(text.String(), " "))
}

func (t *table) row(columns []column, cell func(*column) string) {
	for i := range columns {
		c := &columns[i]
		if i > 0 {
			t.printf(" ")
		}
		t.printf("%s", pad(fit(cell(c), c.width), c.width, i > 0))
	}
	t.printf("\n")
}

// fit cuts a text to a width.
func fit(text string, width int) string {
	runes := []rune(plain(text))
	if len(runes) <= width {
		return string(runes)
	}
	return string(runes[:width-1]) + "…"
}

// pad fills a text up to a width, on its left or its right.
func pad(text string, width int, right bool) string {
	space := strings.Repeat(" ", width-utf8.RuneCountInString(text))
	if right {
		return space + text
	}
	return text + space
}
