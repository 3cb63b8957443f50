package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/evently/evently/bench"
)

// benchProgress tells how far a bench is: in one line that is written again and again, or where that cannot be in a line for each
// measurement.
type benchProgress struct {
	to       io.Writer
	terminal bool
	began    time.Time
	last     string
}

// progressWidth is that of the line: a longer one would not be written over.
const progressWidth = 79

func newBenchProgress(to io.Writer) *benchProgress {
	p := &benchProgress{to: to, began: time.Now()}
	if file, ok := to.(*os.File); ok {
		info, err := file.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
	}
	return p
}

// showing tells of one of several plans.
func (p *benchProgress) showing(number, of int) func(bench.Progress) {
	return func(now bench.Progress) {
		text := fmt.Sprintf("%d of %d: %s", min(now.Done+1, now.Of), now.Of, now.Design)
		if of > 1 {
			text = fmt.Sprintf("part %d of %d, %s", number, of, text)
		}
		if now.Workload != "" {
			text += fmt.Sprintf(", %s, %d connections", now.Workload, now.Connections)
		}
		if now.Rate > 0 {
			text += fmt.Sprintf(", %.0f/s due", now.Rate)
		}
		if now.Round == 0 {
			text += ", thrown away"
		} else {
			text += fmt.Sprintf(", round %d", now.Round)
		}
		if !p.terminal {
			if now.Workload != "" && now.Phase != bench.PhaseStop {
				p.say(text)
			}
			return
		}
		text += ", " + string(now.Phase)
		if now.PerSecond > 0 {
			text += fmt.Sprintf(" %.0f/s", now.PerSecond)
		}
		p.say(text)
	}
}

// say writes a line, unless it was the last one.
func (p *benchProgress) say(text string) {
	if !p.terminal {
		if text != p.last {
			fmt.Fprintln(p.to, text)
		}
		p.last = text
		return
	}
	text = fmt.Sprintf("%4.0f s  %s", time.Since(p.began).Seconds(), text)
	if len(text) > progressWidth {
		text = text[:progressWidth]
	}
	// Spaces, not a control sequence, so that any terminal does.
	fmt.Fprint(p.to, "\r"+text+strings.Repeat(" ", progressWidth-len(text)))
}

// warn writes a line that stays.
func (p *benchProgress) warn(text string) {
	p.end()
	fmt.Fprintln(p.to, "warning: "+text)
}

// end leaves the line to others.
func (p *benchProgress) end() {
	if p.terminal {
		fmt.Fprint(p.to, "\r"+strings.Repeat(" ", progressWidth)+"\r")
	}
}
