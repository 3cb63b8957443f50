package bench

import (
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strings"
)

//go:embed report.html.tmpl
var pageText string

var pageTemplate = template.Must(template.New("report").Parse(pageText))

// page is what report.html.tmpl shows.
type page struct {
	Heading  []string
	Title    string
	Short    string // the outcome in one sentence
	Pictures []picture
	Sections []pageSection
	Spending *pageSpending // nil: not known
	Designs  []pageDesign
	Rounds   []pageRound
}

type picture struct {
	Title, Text string
	Drawing     template.HTML
	Legend      []legendItem
}

type legendItem struct {
	Sign template.HTML
	Name string
}

type pageSection struct {
	Title, About, Extent string
	Table                pageTable
	Bars                 *picture
	Latency              *picture
}

type pageSpending struct {
	Title, Text string
	Tables      []pageTable
}

type pageTable struct {
	Caption string
	Groups  []pageGroup
	Columns []string
	Lines   []pageLine
}

type pageGroup struct {
	Name string
	Span int
}

type pageLine struct {
	Name    string
	Class   string
	Cells   []string
	Instead string
	Notes   []string
	Span    int // of Instead and Notes
}

type pageDesign struct {
	Title, Name, About, Kind string
}

type pageRound struct {
	Round                  int
	Design, Section        string
	Done, P50, P99, Memory string
	Audit                  string
}

// WriteHTML writes the report as a page that needs nothing but itself.
func (r *Report) WriteHTML(w io.Writer) error {
	p := page{Heading: r.heading(), Title: "Evently bench, " + r.Began.UTC().Format("2006-01-02")}
	sections := r.sections()
	most := mainSection(sections)
	if most != nil {
		p.Short = short(most)
		p.Pictures = r.pictures(sections, most)
	}
	for i := range sections {
		p.Sections = append(p.Sections, r.pageSection(&sections[i], &sections[i] == most))
	}
	if spendings := r.spendings(sections); len(spendings) > 0 {
		p.Spending = &pageSpending{Title: spendingTitle, Text: r.spendingNote()}
		for _, s := range spendings {
			table := newPageTable(s.Columns, s.Lines)
			table.Caption = s.Title
			p.Spending.Tables = append(p.Spending.Tables, table)
		}
	}
	for i := range r.Designs {
		d := &r.Designs[i]
		kind := "durable"
		switch {
		case d.Absent != "":
			kind = "absent: " + d.Absent
		case d.Ceiling:
			kind = "ceiling: books nothing"
		case !d.Durable:
			kind = "not durable"
		}
		p.Designs = append(p.Designs, pageDesign{cmp.Or(d.Title, d.Name), d.Name, d.explained(), kind})
	}
	for _, s := range sections {
		for _, l := range s.Lines {
			for _, round := range l.rounds {
				p.Rounds = append(p.Rounds, newPageRound(&s, &l, &round))
			}
		}
	}
	return pageTemplate.Execute(w, p)
}

// mainSection is the closed loop of the first workload with the most connections.
func mainSection(sections []section) (found *section) {
	for i := range sections {
		s := &sections[i]
		if s.Workload.Name == sections[0].Workload.Name && (found == nil || !s.Open) {
			found = s
		}
	}
	return found
}

func (s *section) line(design string) *line {
	for i := range s.Lines {
		if s.Lines[i].Name == design && s.Lines[i].Valid() {
			return &s.Lines[i]
		}
	}
	return nil
}

func short(s *section) string {
	l := s.line(ReferenceName)
	if l == nil {
		return ""
	}
	_, many := s.unit()
	text := fmt.Sprintf("%s: %s %s a second", s.Title(), count(l.Done), many)
	if l.OfCeiling > 0 {
		text += fmt.Sprintf(", %s of what the same server answers when it books nothing", figure(l.OfCeiling))
	}
	return text + fmt.Sprintf("; half of the answers within %s ms, 99 %% within %s ms.", figure(l.Latency.P50), figure(l.Latency.P99))
}

// Styles of curves and bars: the reference, the ceilings, and the others in turn.
const (
	styleReference = 0
	styleCeiling   = 1
	styleOther     = 3
	styleCount     = 12
)

func (r *Report) style(name string) int {
	ceilings, others := 0, 0
	for _, d := range r.Designs {
		style := styleReference
		switch {
		case d.Name == ReferenceName:
		case d.Ceiling:
			style = styleCeiling + ceilings%(styleOther-styleCeiling)
			ceilings++
		default:
			style = styleOther + others%(styleCount-styleOther)
			others++
		}
		if d.Name == name {
			return style
		}
	}
	return styleCount - 1
}

// pictures are those that compare sections, and those of the main one.
func (r *Report) pictures(sections []section, most *section) []picture {
	one, many := most.unit()
	list := []picture{{
		Title: "Throughput", Text: most.Title() + ". Bars are medians of the rounds, whiskers the least and the most.",
		Drawing: drawBars(r.throughput(most)),
	}}
	if cost := costs(most); cost != nil {
		list = append(list, picture{
			Title: "Cost", Text: most.Title() + ". Processor time for each " + one + ".",
			Drawing: drawBars(*cost), Legend: costLegend(most),
		})
	}
	if latency := r.latency(most); latency != nil {
		list = append(list, *latency)
	}
	var ladder []*section
	for i := range sections {
		if s := &sections[i]; s.Workload.Name == most.Workload.Name && !s.Open {
			ladder = append(ladder, s)
		}
	}
	if p := r.across(ladder, across{
		x: func(s *section) float64 { return float64(s.Connections) }, y: func(l *line) float64 { return l.Done },
		xAxis: "connections", yAxis: many + " a second",
	}); p != nil {
		p.Title, p.Text = "Throughput by connections", most.Workload.Title+". Both scales are logarithmic."
		list = append(list, *p)
	}
	var events []*section
	for i := range sections {
		s := &sections[i]
		w := &s.Workload
		if !s.Open && s.Connections == most.Connections && w.Counts == "booked" && w.Mix == (Mix{}) && w.Demand == 0 {
			events = append(events, s)
		}
	}
	if p := r.across(events, across{
		x:     func(s *section) float64 { return float64(s.Workload.Events) },
		y:     func(l *line) float64 { return l.CPU.Server + l.CPU.Postgres + l.CPU.Redis },
		xAxis: "events on sale", yAxis: "µs of server, Postgres and Redis for each booking",
	}); p != nil {
		p.Title = "Cost by number of events"
		p.Text = fmt.Sprintf("%d connections. Both scales are logarithmic. Of many events a few are popular.", most.Connections)
		list = append(list, *p)
	}
	return list
}

// throughput is the picture of a section's rates.
func (r *Report) throughput(s *section) bars {
	_, many := s.unit()
	b := bars{Axis: many + " a second", Description: "Bars of " + many + " a second by design, as in the table."}
	for i := range s.Lines {
		l := &s.Lines[i]
		bar := namedBar{Name: l.Title, Instead: l.instead(), Bad: l.Failed != "", Emphasis: l.Name == ReferenceName}
		if l.Valid() {
			bar.Low, bar.High, bar.Text = l.DoneMin, l.DoneMax, count(l.Done)
			title := fmt.Sprintf("%s: %s, %s to %s", l.Title, count(l.Done), count(l.DoneMin), count(l.DoneMax))
			bar.Parts = []barPart{{l.Done, fmt.Sprintf("bar s%d", r.style(l.Name)), title}}
		}
		b.Bars = append(b.Bars, bar)
	}
	return b
}

// parts are who spends processor time.
var parts = []struct {
	name, class string
	of          func(*CPU) float64
}{
	{"server", "bar p0", func(c *CPU) float64 { return c.Server }},
	{"Postgres", "bar p1", func(c *CPU) float64 { return c.Postgres }},
	{"Redis", "bar p2", func(c *CPU) float64 { return c.Redis }},
	{"load generator", "bar p3", func(c *CPU) float64 { return c.Load }},
}

// costs is the picture of a section's processor time; nil: nobody knows it.
func costs(s *section) *bars {
	one, _ := s.unit()
	b := &bars{Axis: "µs for each " + one, Description: "Stacked bars of processor time by design, as in the table."}
	known := false
	for i := range s.Lines {
		l := &s.Lines[i]
		bar := namedBar{Name: l.Title, Instead: l.instead(), Bad: l.Failed != "", Emphasis: l.Name == ReferenceName}
		if l.Valid() {
			for _, part := range parts {
				v := part.of(&l.CPU)
				bar.Parts = append(bar.Parts, barPart{v, part.class, fmt.Sprintf("%s, %s: %s µs", l.Title, part.name, figure(v))})
			}
			bar.Text = figure(bar.total())
			known = known || bar.total() > 0
		}
		b.Bars = append(b.Bars, bar)
	}
	if !known {
		return nil
	}
	return b
}

func costLegend(s *section) (items []legendItem) {
	for _, part := range parts {
		if slices.ContainsFunc(s.Lines, func(l line) bool { return l.Valid() && part.of(&l.CPU) > 0 }) {
			items = append(items, legendItem{template.HTML(`<span class="` + part.class + `"></span>`), part.name})
		}
	}
	return items
}

// across is what a picture shows of the designs in several sections.
type across struct {
	x            func(*section) float64
	y            func(*line) float64
	xAxis, yAxis string
}

// across returns nil when there is nothing to compare.
func (r *Report) across(sections []*section, a across) *picture {
	c := curves{X: a.xAxis, Y: a.yAxis, XLog: true, YLog: true, Marked: true}
	least, most := math.Inf(1), 0.0
	for _, d := range r.Designs {
		one := curve{Name: cmp.Or(d.Title, d.Name), Style: r.style(d.Name)}
		for _, s := range sections {
			l := s.line(d.Name)
			if l == nil || !finite(a.y(l)) || a.y(l) <= 0 || a.x(s) <= 0 {
				continue
			}
			one.Points = append(one.Points, [2]float64{a.x(s), a.y(l)})
			least, most = min(least, a.y(l)), max(most, a.y(l))
			if x := (tick{a.x(s), count(a.x(s))}); !slices.Contains(c.XTicks, x) {
				c.XTicks = append(c.XTicks, x)
			}
		}
		if len(one.Points) > 0 {
			c.Curves = append(c.Curves, one)
		}
	}
	if len(c.XTicks) < 2 {
		return nil
	}
	slices.SortFunc(c.XTicks, func(a, b tick) int { return cmp.Compare(a.at, b.at) })
	c.YTicks = logTicks(least, most)
	c.Description = fmt.Sprintf("Lines of %s over %s by design, as in the tables.", a.yAxis, a.xAxis)
	return &picture{Drawing: drawCurves(c), Legend: c.legend()}
}

func (c *curves) legend() (items []legendItem) {
	for _, one := range c.Curves {
		items = append(items, legendItem{swatch(one.Style), one.Name})
	}
	return items
}

// Where the curves of a distribution begin and end: at 1 % (a few fast answers would stretch the axis for nothing) and 99.9 %.
const (
	shareMin = 0.01
	ninesMax = 3
)

// nines stretches the shares near to 1: 0.9 is 1, 0.99 is 2.
func nines(share float64) float64 { return -math.Log10(1 - share) }

// latency is the picture of a section's distributions; nil: there are none.
func (r *Report) latency(s *section) *picture {
	c := curves{
		X: "latency, ms", Y: "share of answers within that time", XLog: true,
		YTicks:      []tick{{0, "0 %"}, {nines(0.5), "50 %"}, {1, "90 %"}, {2, "99 %"}, {ninesMax, "99.9 %"}},
		Description: "Cumulative distribution of the latency by design; the table has the 50th, 99th and 99.9th percentiles.",
	}
	least, most := math.Inf(1), 0.0
	for i := range s.Lines {
		l := &s.Lines[i]
		points := l.distribution()
		if !l.Valid() || len(points) == 0 {
			continue
		}
		name := l.Title
		if s.Open {
			name += " at " + count(l.Rate) + "/s"
		}
		c.Curves = append(c.Curves, curve{Name: name, Style: r.style(l.Name), Points: points})
		least, most = min(least, points[0][0]), max(most, points[len(points)-1][0])
	}
	if len(c.Curves) == 0 {
		return nil
	}
	c.XTicks = logTicks(least, most)
	return &picture{
		Title: "Latency", Text: s.Title() + ". From the moment at which a request was due to its whole answer, in the median round.",
		Drawing: drawCurves(c), Legend: c.legend(),
	}
}

// distribution is that of the round in the middle, as milliseconds and nines.
func (l *line) distribution() (points [][2]float64) {
	if len(l.rounds) == 0 {
		return nil
	}
	middle := slices.MinFunc(l.rounds, func(a, b Round) int {
		return cmp.Compare(math.Abs(a.Done-l.Done), math.Abs(b.Done-l.Done))
	})
	for _, q := range middle.Quantiles {
		if !finite(q.Milliseconds, q.Share) || q.Milliseconds <= 0 || q.Share < shareMin || q.Share > 1 {
			continue
		}
		at := [2]float64{q.Milliseconds, min(nines(q.Share), 9)}
		if at[1] <= ninesMax {
			points = append(points, at)
			continue
		}
		if n := len(points); n > 0 { // the curve ends at the edge
			before := points[n-1]
			share := (ninesMax - before[1]) / (at[1] - before[1])
			points = append(points, [2]float64{before[0] * math.Pow(at[0]/before[0], share), ninesMax})
		}
		break
	}
	return points
}

func (r *Report) pageSection(s *section, shown bool) pageSection {
	out := pageSection{Title: s.Title(), About: s.Workload.About, Extent: s.Extent()}
	memory := column{"memory", "MB", 0, func(l *line) string { return unlessZero(float64(l.RSS)/(1<<20), count) }}
	out.Table = newPageTable(append(s.columns(), memory), s.Lines)
	if s.Open {
		out.Latency = r.latency(s)
	} else if len(s.Lines) > 1 && !shown {
		out.Bars = &picture{Drawing: drawBars(r.throughput(s))}
	}
	return out
}

func newPageTable(columns []column, lines []line) (out pageTable) {
	for _, c := range columns {
		out.Columns = append(out.Columns, c.name)
		if n := len(out.Groups); n > 0 && c.group != "" && out.Groups[n-1].Name == c.group {
			out.Groups[n-1].Span++
		} else {
			out.Groups = append(out.Groups, pageGroup{c.group, 1})
		}
	}
	for i := range lines {
		l := &lines[i]
		row := pageLine{Name: l.label(), Instead: l.instead(), Notes: l.Notes, Span: len(out.Columns) - 1}
		switch {
		case l.Name == ReferenceName:
			row.Class = "strong"
		case l.Failed != "":
			row.Class = "failed"
		case l.Absent != "":
			row.Class = "absent"
		}
		if l.Valid() {
			for _, c := range columns[1:] {
				row.Cells = append(row.Cells, c.text(l))
			}
		}
		out.Lines = append(out.Lines, row)
	}
	return out
}

func newPageRound(s *section, l *line, round *Round) pageRound {
	out := pageRound{Round: round.Round, Design: l.Title, Section: s.Title()}
	switch {
	case !round.Audit.Passed():
		out.Audit = "FAILED: " + strings.Join(append([]string{round.Audit.verdict()}, round.Audit.Faults...), "; ")
		return out
	case round.Audit.Skipped != "":
		out.Audit = round.Audit.Skipped
	default:
		out.Audit = fmt.Sprintf("passed: %s acknowledged, %s stored, %s keys", count(float64(round.Audit.Acknowledged)),
			count(float64(round.Audit.Stored)), count(float64(round.Audit.Keys)))
	}
	out.Done, out.P50, out.P99 = count(round.Done), figure(round.Latency.P50), figure(round.Latency.P99)
	out.Memory = unlessZero(float64(round.ServerRSS)/(1<<20), count)
	return out
}
