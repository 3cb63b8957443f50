package cluster

import (
	"bytes"
	"context"
	"log/slog"
)

// protoLog thins out Proto.Actor's records. It tells every connection and spawn at Info, which is dropped, and the routine
// loss of a connection at Error, which becomes Warn: this package itself tells what a failure means.
type protoLog struct{ slog.Handler }

func (h protoLog) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && h.Handler.Enabled(ctx, slog.LevelWarn)
}

func (h protoLog) Handle(ctx context.Context, record slog.Record) error {
	record.Level = slog.LevelWarn
	return h.Handler.Handle(ctx, record)
}

func (h protoLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return protoLog{h.Handler.WithAttrs(attrs)}
}

func (h protoLog) WithGroup(name string) slog.Handler { return protoLog{h.Handler.WithGroup(name)} }

// gossipLog takes memberlist's lines, "[LEVEL] memberlist: text", to a slog.Logger.
type gossipLog struct {
	log     *slog.Logger
	stopped func() bool // after that, errors are to be expected
}

// gossipLevels has no Error: what memberlist calls one is a failed exchange with one peer, which its protocol expects.
var gossipLevels = map[string]slog.Level{
	"[ERR]":   slog.LevelWarn,
	"[WARN]":  slog.LevelWarn,
	"[INFO]":  slog.LevelInfo,
	"[DEBUG]": slog.LevelDebug,
}

func (w gossipLog) Write(line []byte) (int, error) {
	text := bytes.TrimSpace(line)
	level := slog.LevelInfo
	if tag, rest, ok := bytes.Cut(text, []byte(" ")); ok {
		if known, ok := gossipLevels[string(tag)]; ok {
			level, text = known, bytes.TrimPrefix(rest, []byte("memberlist: "))
		}
	}
	if w.stopped() {
		level = min(level, slog.LevelDebug)
	}
	w.log.Log(context.Background(), level, string(text))
	return len(line), nil
}
