package store

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/evently/evently/store/pgtest"
)

// The databases of tests are copies of one.
func TestInstallation_TellsDatabasesAndTheirCopiesApart(t *testing.T) {
	ids := make(map[string]bool)
	for range 2 {
		pool := openPool(t, pgtest.Database(t), 4)
		for range 2 {
			id, err := Installation(t.Context(), pool)
			if err != nil || len(id) != 32 {
				t.Fatalf("got %q, %v", id, err)
			}
			ids[id] = true
		}
	}
	if len(ids) != 2 {
		t.Errorf("ids of two databases, asked twice each: %v", ids)
	}
}

// Some providers do not let anybody read the server's identity. Without it databases of one server are told apart all the same.
func TestInstallation_OfARoleThatMayNotReadTheServersIdentity(t *testing.T) {
	first, second := pgtest.Database(t), pgtest.Database(t)
	execAt(t, first, "create role confined login")
	defer execAt(t, first, "drop role confined")
	ids := make(map[string]bool)
	for _, url := range []string{first, second} {
		execAt(t, url, "revoke execute on function pg_control_system() from public")
		execAt(t, url, "grant select on installation to confined")
		defer execAt(t, url, "drop owned by confined")
		pool := openPool(t, with(url, "user=confined"), 4)
		denied := new(pgconn.PgError)
		if _, err := pool.Exec(t.Context(), serverIdentitySQL); !errors.As(err, &denied) || denied.Code != insufficientPrivilege {
			t.Fatalf("the identity is not denied: %v", err)
		}
		for range 2 {
			id, err := Installation(t.Context(), pool)
			if err != nil || len(id) != 32 {
				t.Fatalf("got %q, %v", id, err)
			}
			ids[id] = true
		}
	}
	if len(ids) != 2 {
		t.Errorf("ids of two databases, asked twice each: %v", ids)
	}
}
