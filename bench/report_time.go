package bench

import (
	"fmt"
	"slices"
)

// spending tells what the time of the machine goes to in one section: see Report.spendings.
type spending struct {
	Title   string
	Columns []column
	Lines   []line
}

// spendings are the closed loops of which the processor time is known: of the first workload all durable designs, of the others the
// reference, each beside the ceiling that it is measured against.
func (r *Report) spendings(sections []section) (list []spending) {
	for i := range sections {
		s := &sections[i]
		if s.Open || s.line(CeilingName) == nil {
			continue
		}
		all := s.Workload.Name == sections[0].Workload.Name
		lines := slices.DeleteFunc(slices.Clone(s.Lines), func(l line) bool {
			wanted := l.Name == CeilingName || l.Name == ReferenceName || all && l.Durable
			return !wanted || !l.Valid() || l.Done <= 0 || l.CPU.spent() <= 0
		})
		for j := range lines {
			lines[j].Notes = nil // they stand beside the figures
		}
		if slices.ContainsFunc(lines, func(l line) bool { return l.Name != CeilingName }) {
			list = append(list, spending{s.Title(), s.spent(r.Machine.Cores, lines), lines})
		}
	}
	return list
}

// spent is the processor time of all that is measured.
func (c *CPU) spent() (sum float64) {
	for _, part := range parts {
		sum += part.of(c)
	}
	return sum
}

// spent are the columns that split the time that the machine's cores have for each thing done.
func (s *section) spent(cores int, lines []line) []column {
	one, many := s.unit()
	group := fmt.Sprintf("µs of %d %s for each %s", cores, plural(cores, "core"), one)
	share := func(l *line) float64 { return float64(max(cores, 1)) * 1e6 / l.Done }
	list := []column{
		{"", "design", 23, (*line).label},
		{many + "/s", "median", 10, func(l *line) string { return count(l.Done) }},
	}
	for _, part := range parts {
		if slices.ContainsFunc(lines, func(l line) bool { return part.of(&l.CPU) > 0 }) {
			list = append(list, column{group, part.name, max(8, len(part.name)), func(l *line) string { return unlessZero(part.of(&l.CPU), figure) }})
		}
	}
	// The parts are medians of their own: where nothing is idle they may add up to some more than there is, and this is below zero.
	return append(
		list,
		column{group, "idle, others", 12, func(l *line) string { return figure(share(l) - l.CPU.spent()) }},
		column{group, "in all", 8, func(l *line) string { return figure(share(l)) }},
	)
}

// spendingNote says how to read what spendings shows.
func (r *Report) spendingNote() string {
	note := "All cores together have so much time for each thing done; a design is slower than the ceiling by what it has more of " +
		"than the ceiling in each column, and what is idle waits for a lock, the disk or another process, or goes to other programs."
	if !slices.ContainsFunc(r.Rounds, func(r Round) bool { return r.CPU.Postgres > 0 }) {
		note += " Postgres is among those: it is on another machine, or its processes are not known."
	}
	return note
}

const spendingTitle = "Where the time goes"
