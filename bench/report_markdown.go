package bench

import (
	"cmp"
	"fmt"
	"io"
	"strings"
)

// WriteMarkdown writes the tables in the Markdown of GitHub.
func (r *Report) WriteMarkdown(w io.Writer) error {
	var text strings.Builder
	heading := r.heading()
	fmt.Fprintf(&text, "`%s`\n\n", strings.ReplaceAll(plain(heading[0]), "`", "'"))
	for _, line := range heading[1:] {
		fmt.Fprintf(&text, "%s\n\n", cell(line))
	}
	sections := r.sections()
	for i := range sections {
		s := &sections[i]
		fmt.Fprintf(&text, "**%s**, %s: %s\n\n", cell(s.Title()), s.Extent(), cell(s.Workload.About))
		markdownTable(&text, s.columns(), s.Lines)
	}
	if spendings := r.spendings(sections); len(spendings) > 0 {
		fmt.Fprintf(&text, "**%s.** %s\n\n", spendingTitle, r.spendingNote())
		for _, s := range spendings {
			fmt.Fprintf(&text, "%s:\n\n", cell(s.Title))
			markdownTable(&text, s.Columns, s.Lines)
		}
	}
	for i := range r.Designs {
		d := &r.Designs[i]
		fmt.Fprintf(&text, "- %s: %s\n", cell(cmp.Or(d.Title, d.Name)), cell(d.explained()))
	}
	text.WriteString("\n")
	for _, note := range legend(sections) {
		fmt.Fprintf(&text, "%s\n\n", cell(note))
	}
	_, err := io.WriteString(w, text.String())
	return err
}

func markdownTable(text *strings.Builder, columns []column, lines []line) {
	row := func(of func(*column) string) {
		for i := range columns {
			fmt.Fprintf(text, "| %s ", cell(of(&columns[i])))
		}
		text.WriteString("|\n")
	}
	row(func(c *column) string { return strings.TrimSpace(c.group + " " + c.name) })
	text.WriteString("|---" + strings.Repeat("|---:", len(columns)-1) + "|\n")
	for i := range lines {
		l := &lines[i]
		if !l.Valid() {
			fmt.Fprintf(text, "| %s | %s%s\n", cell(l.label()), cell(l.instead()), strings.Repeat(" |", len(columns)-1))
			continue
		}
		row(func(c *column) string { return c.text(l) })
		for _, note := range l.Notes {
			fmt.Fprintf(text, "| | %s%s\n", cell(note), strings.Repeat(" |", len(columns)-1))
		}
	}
	text.WriteString("\n")
}

// cell is a text in which nothing means something in Markdown.
func cell(text string) string {
	return strings.NewReplacer("\\", "\\\\", "|", "\\|", "<", "&lt;", "*", "\\*", "_", "\\_", "`", "\\`", "[", "\\[").Replace(plain(text))
}
