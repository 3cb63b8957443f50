package embedded

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
)

// walCompression is how whole pages are compressed in the WAL: by lz4 where Postgres was built with it, else not at all. After a
// checkpoint a booking brings several pages of indexes there. They hold random keys, which hardly get smaller, and pglz takes longer
// over them than all else that the booking costs.
func (s *Server) walCompression(ctx context.Context) string {
	const lz4 = "lz4"
	var out bytes.Buffer
	cmd := s.account.command(string(s.dir), filepath.Join(s.install.BinDir, "postgres"),
		"-C", "wal_compression", "-D", s.dir.pgdata(), "-c", "wal_compression="+lz4)
	cmd.Stdout = &out
	asked, err := spawn(cmd, nil)
	if err == nil {
		err = asked.wait(ctx)
	}
	if err != nil || strings.TrimSpace(out.String()) != lz4 {
		s.cfg.logger().Debug("this PostgreSQL compresses no WAL by lz4", "error", err)
		return "off"
	}
	return lz4
}
