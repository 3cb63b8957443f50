package bench

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/net/html"
)

var update = flag.Bool("update", false, "write the table of the sample report as the one that is wanted")

func text(t *testing.T, write func(io.Writer) error) string {
	t.Helper()
	var out bytes.Buffer
	if err := write(&out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestWriteTable_Golden(t *testing.T) {
	const path = "testdata/table.txt"
	got := text(t, sampleReport().WriteTable)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the table is not that of %s (rewritten by -update):\n%s", path, got)
	}
}

func TestWriteTable_FitsTheTerminal(t *testing.T) {
	r := sampleReport()
	r.Command = strings.Repeat("x", 300) + "\x1b[31m" + strings.Repeat(" --json", 40)
	r.Designs[3].Title = strings.Repeat("long title ", 20)
	r.Rounds[0].Audit.Faults = []string{strings.Repeat("fault ", 50) + "\x1b[2J\r\n"}
	got := text(t, r.WriteTable)
	for line := range strings.SplitSeq(got, "\n") {
		if n := utf8.RuneCountInString(line); n > tableWidth {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	if strings.ContainsFunc(got, func(c rune) bool { return c < ' ' && c != '\n' || c == 0x7f }) {
		t.Errorf("control characters in %q", got)
	}
}

// leak is a number that nothing but the figures of a failed audit has.
const leak = 86_420_975.0

// leakyReport has one design that fails with figures that are easy to find.
func leakyReport() *Report {
	r := sampleReport()
	r.Rounds = slices.DeleteFunc(r.Rounds, func(r Round) bool { return r.Rate > 0 || r.Workload != "hot" || r.Connections != 256 })
	for i := range r.Rounds {
		round := &r.Rounds[i]
		round.Audit = Audit{}
		if round.Design != "for-update" {
			continue
		}
		round.Done, round.Commits = leak, leak
		round.Latency = Latency{leak, leak, leak, leak, leak, leak}
		round.CPU = CPU{leak, leak, leak, leak, leak}
		round.Timeline, round.Quantiles = []float64{leak}, []LatencyAt{{0.5, leak}}
		round.Audit.Lost = 1
	}
	r.Summary = Summaries(r.Rounds)
	return r
}

func TestReport_ShowsNoFigureOfAFailedAudit(t *testing.T) {
	for _, summarized := range []string{"as failed", "as passed"} {
		r := leakyReport()
		if summarized == "as passed" { // by whoever made the report: the rounds tell
			for i := range r.Summary {
				r.Summary[i].Passed = true
			}
		}
		for name, write := range map[string]func(io.Writer) error{
			"table": r.WriteTable, "Markdown": r.WriteMarkdown, "page": r.WriteHTML, "JSON": r.WriteJSON,
		} {
			got := text(t, write)
			if regexp.MustCompile(`86,?420,?97|8\.6420975`).MatchString(got) {
				t.Errorf("%s, summarized %s: a figure of a failed audit in\n%s", name, summarized, got)
			}
			if want := "FAILED its audit: 3 acknowledged bookings lost"; name != "JSON" && !strings.Contains(got, want) {
				t.Errorf("%s: no %q in\n%s", name, want, got)
			}
		}
		if got := r.Faults(); len(got) != 1 || !strings.Contains(got[0], "SELECT ... FOR UPDATE") {
			t.Errorf("faults: %q", got)
		}
	}
}

func TestFaults_AreThoseOfDurableDesignsAndCeilings(t *testing.T) {
	r := leakyReport()
	for i := range r.Designs {
		r.Designs[i].Durable = r.Designs[i].Name != "for-update"
	}
	if got := r.Faults(); len(got) != 0 {
		t.Errorf("faults: %q", got)
	}
	for i := range r.Designs {
		r.Designs[i].Ceiling = r.Designs[i].Name == "for-update"
	}
	if got := r.Faults(); len(got) != 1 {
		t.Errorf("faults of a ceiling: %q", got)
	}
}

// Nothing is compared with a design that has no result.
func TestReport_ComparesWithNoFailedAudit(t *testing.T) {
	for _, failing := range []string{ReferenceName, CeilingName} {
		r := leakyReport()
		for i := range r.Rounds {
			r.Rounds[i].Audit = Audit{}
			if r.Rounds[i].Design == failing && r.Rounds[i].Round == 2 {
				r.Rounds[i].Audit.Faults = []string{"not measured"}
			}
		}
		r.Summary = Summaries(r.Rounds)
		for _, s := range r.sections() {
			for _, l := range s.Lines {
				if ratio := map[string]float64{ReferenceName: l.Slower, CeilingName: l.OfCeiling}[failing]; l.Valid() && ratio != 0 {
					t.Errorf("%s is compared with %s: %v", l.Title, failing, ratio)
				}
			}
		}
	}
}

// What a reader of a figure has to know stands beside it.
func TestReport_EveryFormatHasTheNotes(t *testing.T) {
	r := sampleReport()
	r.Settings = "Of all designs webhooks are off."
	for i := range r.Rounds {
		if round := &r.Rounds[i]; round.Workload == "hot" && round.Design == "skip-locked" {
			round.Outcomes["refused"] = 1_234_567
		}
	}
	for name, write := range map[string]func(io.Writer) error{"table": r.WriteTable, "Markdown": r.WriteMarkdown, "page": r.WriteHTML} {
		got := text(t, write)
		if name == "page" {
			got = html.UnescapeString(got)
		}
		for _, want := range []string{
			"12 requests failed, such as: 503 unavailable", "no connection got to 3,933 scheduled requests", "sent over 1 ms late",
			"the demand was not met in time: ", " of 200,000 requests were answered",
			"sold out before the end: 3,703,701 bookings were refused and do not count", r.Settings, r.Method,
			"Locks the event's row for a transaction.", "share a commit; 16 connections to Postgres", spendingTitle, "All cores together have so much time",
		} {
			if !strings.Contains(got, want) {
				t.Errorf("%s: no %q in\n%s", name, want, got)
			}
		}
	}
}

// What the machine's cores have for each thing done is split without a rest.
func TestSpendings_AddUp(t *testing.T) {
	r := sampleReport()
	for i := range r.Rounds {
		if round := &r.Rounds[i]; round.Design == "skip-locked" { // more than there is, as of medians
			round.CPU.Load = 2e6 / round.Done
		}
	}
	r.Summary = Summaries(r.Rounds)
	list := r.spendings(r.sections())
	designs := make(map[string][]string)
	for _, s := range list {
		for j := range s.Lines {
			l := &s.Lines[j]
			designs[s.Title] = append(designs[s.Title], l.Name)
			sum := 0.0
			for _, c := range s.Columns[2:] {
				cell := strings.ReplaceAll(c.text(l), ",", "")
				if cell == unknown {
					continue
				}
				v, err := strconv.ParseFloat(cell, 64)
				if err != nil {
					t.Fatal(err)
				}
				if c.name != "in all" {
					sum += v
				} else if all := 2e6 / l.Done; math.Abs(v-all) > 1 || math.Abs(sum-all) > 1 {
					t.Errorf("%s, %s: the parts are %.1f µs, all %v, want %.1f", s.Title, l.Name, sum, v, all)
				}
			}
		}
	}
	for title, want := range map[string]string{
		"Hot event, closed loop of 64 connections": "evently noop for-update conditional-update optimistic skip-locked advisory-lock",
		"Reads, closed loop of 256 connections":    "evently noop",
		"Hot event, open loop":                     "",
	} {
		if got := strings.Join(designs[title], " "); got != want {
			t.Errorf("%s: %q, want %q", title, got, want)
		}
	}
}

func TestSpendings_SayWhetherPostgresIsKnown(t *testing.T) {
	r := sampleReport()
	const elsewhere = "Postgres is among those"
	if strings.Contains(r.spendingNote(), elsewhere) {
		t.Error(r.spendingNote())
	}
	for i := range r.Rounds {
		r.Rounds[i].CPU.Postgres = 0
	}
	r.Summary = Summaries(r.Rounds)
	if !strings.Contains(text(t, r.WriteMarkdown), elsewhere) {
		t.Error(r.spendingNote())
	}
}

func TestWriteJSON_KeepsWhatPassed(t *testing.T) {
	r := sampleReport()
	var got Report
	if err := json.Unmarshal([]byte(text(t, r.WriteJSON)), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Rounds) != len(r.Rounds) || len(got.Summary) != len(r.Summary) {
		t.Fatalf("%d rounds and %d summaries of %d and %d", len(got.Rounds), len(got.Summary), len(r.Rounds), len(r.Summary))
	}
	for i := range got.Rounds {
		if want := &r.Rounds[i]; want.Audit.Passed() && got.Rounds[i].Done != want.Done {
			t.Errorf("round %d: %f done, want %f", i, got.Rounds[i].Done, want.Done)
		}
	}
}

func TestReport_OfNothing(t *testing.T) {
	r := &Report{Designs: []Design{{Name: "redis", Title: "Redis", Absent: "install redis-server"}}}
	for name, write := range map[string]func(io.Writer) error{"table": r.WriteTable, "page": r.WriteHTML} {
		got := text(t, write)
		if !strings.Contains(got, "Nothing was measured") || !strings.Contains(got, "install redis-server") {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// hostile is a name that would be a script.
const hostile = `<script>alert("x")</script>&"'`

func TestWriteHTML_NeedsNothingAndEscapesEverything(t *testing.T) {
	r := sampleReport()
	r.Designs = append(r.Designs, Design{Name: hostile, Title: hostile, About: hostile})
	for i := range r.Rounds {
		if r.Rounds[i].Design == "redis" {
			r.Rounds[i].Design = hostile
		}
	}
	r.Command, r.Machine.CPU, r.Workload[0].Title, r.Workload[0].About = hostile, hostile, hostile, hostile
	r.Summary = Summaries(r.Rounds)
	source := text(t, r.WriteHTML)
	if strings.Contains(source, "<script") || strings.Contains(source, "://") {
		t.Error("the page has a script, or a URL")
	}
	tokens := html.NewTokenizer(strings.NewReader(source))
	var open []string
	var words strings.Builder
	for {
		kind := tokens.Next()
		if kind == html.ErrorToken {
			if err := tokens.Err(); !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			break
		}
		token := tokens.Token()
		for _, attribute := range token.Attr {
			if slices.Contains([]string{"src", "href", "srcset", "xlink:href", "action"}, attribute.Key) || strings.HasPrefix(attribute.Key, "on") {
				t.Errorf("<%s %s=%q>", token.Data, attribute.Key, attribute.Val)
			}
		}
		switch void := token.Data == "meta" || token.Data == "br"; {
		case kind == html.TextToken:
			words.WriteString(token.Data)
		case kind == html.StartTagToken && !void:
			open = append(open, token.Data)
		case kind == html.EndTagToken:
			if len(open) == 0 || open[len(open)-1] != token.Data {
				t.Fatalf("</%s> ends %q", token.Data, open)
			}
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 {
		t.Errorf("not ended: %q", open)
	}
	for _, d := range r.Designs {
		if d.Name != "redis" && strings.Count(words.String(), d.Title) < 3 {
			t.Errorf("%s stands %d times in the page", d.Title, strings.Count(words.String(), d.Title))
		}
	}
}

func TestWriteHTML_PicturesAreSound(t *testing.T) {
	r := sampleReport()
	// What no measurement can be.
	for i, v := range []float64{math.NaN(), math.Inf(1), -1, 0} {
		s := &r.Summary[len(r.Summary)-1-i]
		s.Done, s.DoneMin, s.DoneMax, s.CPU.Server, s.Latency.P50 = v, v, v, v, v
	}
	r.Rounds[0].Quantiles = []LatencyAt{{0, 0}, {0.5, math.NaN()}, {2, 3}, {1, math.Inf(1)}}
	r.Rounds[1].Quantiles = nil
	source := text(t, r.WriteHTML)
	pictures := regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(source, -1)
	if len(pictures) < 2*8 {
		t.Fatalf("%d pictures", len(pictures))
	}
	for _, picture := range pictures {
		decoder := xml.NewDecoder(strings.NewReader(picture))
		var box []float64
		for {
			token, err := decoder.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%v in %s", err, picture)
			}
			element, ok := token.(xml.StartElement)
			if !ok {
				continue
			}
			for _, attribute := range element.Attr {
				switch name := attribute.Name.Local; name {
				case "viewBox":
					box = numbersIn(t, attribute.Value)
				case "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height", "d":
					for _, v := range numbersIn(t, attribute.Value) {
						if v < -1 || v > max(box[2], box[3])+1 {
							t.Errorf("<%s %s=%q> is outside of %v", element.Name.Local, name, attribute.Value, box)
						}
					}
				}
			}
		}
	}
}

func numbersIn(t *testing.T, text string) (numbers []float64) {
	t.Helper()
	for word := range strings.FieldsFuncSeq(text, func(c rune) bool { return c == ' ' || c == 'M' || c == 'L' || c == 'Z' }) {
		v, err := strconv.ParseFloat(word, 64)
		if err != nil || !finite(v) {
			t.Errorf("%q in %q", word, text)
		}
		numbers = append(numbers, v)
	}
	return numbers
}

func TestTicks_AreRoundAndEncloseTheValues(t *testing.T) {
	for _, most := range []float64{0.0003, 0.7, 1, 9.99, 12, 31_204, 1e9, 0, math.NaN(), math.Inf(1)} {
		ticks := linearTicks(most, 6)
		last := ticks[len(ticks)-1].at
		if ticks[0].at != 0 || len(ticks) > 9 || finite(most) && last < most*0.999 {
			t.Errorf("to %g: %v", most, ticks)
		}
	}
	for _, c := range [][2]float64{{0.1, 0.2}, {1, 1}, {3, 900}, {0.004, 70_000}, {64, 256}, {0, 5}, {5, 1}, {math.NaN(), 1}} {
		ticks := logTicks(c[0], c[1])
		if len(ticks) < 2 || len(ticks) > 12 || !slices.IsSortedFunc(ticks, func(a, b tick) int { return int(math.Copysign(1, a.at-b.at)) }) {
			t.Errorf("%v: %v", c, ticks)
		}
		if sound := c[0] > 0 && c[1] >= c[0]; sound && (ticks[0].at > c[0]*1.01 || ticks[len(ticks)-1].at < c[1]*0.99) {
			t.Errorf("%v: %v do not enclose it", c, ticks)
		}
	}
}

func TestFigure_HasThreeDigits(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 0.004: "0.004", 0.0312: "0.03", 1.234: "1.23", 12.34: "12.3", 99.96: "100", 123.4: "123", 1_234_567: "1,234,567", math.NaN(): "?",
	} {
		if got := figure(v); got != want {
			t.Errorf("%g is %q, want %q", v, got, want)
		}
	}
}

// As many designs as there are to compare have a colour, a line and a mark each.
func TestStyles_AreDistinct(t *testing.T) {
	r := &Report{Designs: []Design{{Name: ReferenceName}, {Name: "noop", Ceiling: true}, {Name: "gin", Ceiling: true}}}
	for n := range 9 {
		r.Designs = append(r.Designs, Design{Name: strconv.Itoa(n)})
	}
	page, err := os.ReadFile("report.html.tmpl")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[int]string)
	for _, d := range r.Designs {
		style := r.style(d.Name)
		if other, again := seen[style]; again || !bytes.Contains(page, []byte(".curve.s"+strconv.Itoa(style)+" {")) {
			t.Errorf("%s has style %d, as has %q", d.Name, style, other)
		}
		seen[style] = d.Name
	}
}
