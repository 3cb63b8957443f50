package embedded

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
)

// Bounds on what is kept of the server's log.
const (
	tailLinesMax = 40
	lineBytesMax = 4 << 10
)

// serverLog passes the server's log on, line by line, and remembers its tail for error messages.
type serverLog struct {
	to *slog.Logger

	mu   sync.Mutex
	part []byte
	tail []string
}

func (l *serverLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.part = append(l.part, p...)
	for {
		end := bytes.IndexByte(l.part, '\n')
		if end < 0 && len(l.part) < lineBytesMax {
			return len(p), nil
		}
		if end < 0 || end > lineBytesMax {
			end = lineBytesMax
		}
		l.add(string(l.part[:end]))
		l.part = bytes.TrimPrefix(l.part[end:], []byte("\n"))
	}
}

func (l *serverLog) add(line string) {
	l.to.Log(context.Background(), level(line), "postgres: "+line)
	if len(l.tail) == tailLinesMax {
		l.tail = l.tail[1:]
	}
	l.tail = append(l.tail, line)
}

// level is low for ERROR: those are answers to clients, who report them.
func level(line string) slog.Level {
	switch {
	case strings.Contains(line, "] PANIC:  "):
		return slog.LevelError
	case strings.Contains(line, "] FATAL:  "), strings.Contains(line, "] WARNING:  "):
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// String is the tail.
func (l *serverLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := l.tail
	if len(l.part) > 0 {
		lines = append(lines[:len(lines):len(lines)], string(l.part))
	}
	if len(lines) == 0 {
		return "(empty)"
	}
	return strings.Join(lines, "\n")
}
