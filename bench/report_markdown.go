package bench

import (
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
		columns := s.columns()
		fmt.Fprintf(&text, "**%s**, %s: %s\n\n", cell(s.Title()), s.Extent(), cell(s.Workload.About))
		row := func(text *strings.Builder, of func(*column) string) {
			for i := range columns {
				fmt.Fprintf(text, "| %s ", cell(of(&columns[i])))
			}
			text.WriteString("|\n")
		}
		row(&text, func(c *column) string { return strings.TrimSpace(c.group + " " + c.name) })
		text.WriteString("|---" + strings.Repeat("|---:", len(columns)-1) + "|\n")
		for j := range s.Lines {
			l := &s.Lines[j]
			if l.Valid() {
				row(&text, func(c *column) string { return c.text(l) })
				for _, note := range l.Notes {
					fmt.Fprintf(&text, "| | %s%s\n", cell(note), strings.Repeat(" |", len(columns)-1))
				}
			} else {
				fmt.Fprintf(&text, "| %s | %s%s\n", cell(l.label()), cell(l.instead()), strings.Repeat(" |", len(columns)-1))
			}
		}
		text.WriteString("\n")
	}
	for _, note := range legend(sections) {
		fmt.Fprintf(&text, "%s\n\n", cell(note))
	}
	_, err := io.WriteString(w, text.String())
	return err
}

// cell is a text in which nothing means something in Markdown.
func cell(text string) string {
	return strings.NewReplacer("\\", "\\\\", "|", "\\|", "<", "&lt;", "*", "\\*", "_", "\\_", "`", "\\`", "[", "\\[").Replace(plain(text))
}
