package http

import (
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"github.com/evently/evently"
)

func (s *Server) userRoutes() []route {
	return []route{
		{method: http.MethodGet, path: "/admin/users", handle: s.listUsers, access: usersManage, query: usersQuery},
		{method: http.MethodGet, path: "/admin/users/:id", handle: s.getUser, access: usersManage},
		{method: http.MethodPut, path: "/admin/users/:id/role", handle: s.changeRole, access: usersManage},
	}
}

// The query parameters of lists.
var (
	pageQuery  = []string{"limit", "cursor"}
	usersQuery = []string{"q", "role", "limit", "cursor"}
)

func (s *Server) listUsers(c *gin.Context) error {
	var fields evently.FieldErrors
	filter := evently.UserFilter{Text: strings.TrimSpace(c.Query("q"))}
	if !utf8.ValidString(filter.Text) || utf8.RuneCountInString(filter.Text) > queryRunesMax || strings.ContainsRune(filter.Text, 0) {
		fields.Add("q", fmt.Sprintf("must be a text of at most %d characters", queryRunesMax))
	}
	if text := c.Query("role"); text != "" {
		role := checkRole(&fields, text)
		filter.Role = &role
	}
	if err := fields.Err(); err != nil {
		return err
	}
	page, err := pageOf(c, usersByTime)
	if err != nil {
		return err
	}
	users, next, err := s.config.Accounts.Users(c.Request.Context(), filter, page)
	if err != nil {
		return fmt.Errorf("list users: %w", err)
	}
	writeList(c, users, newUserJSON, nextCursor(next, usersByTime))
	return nil
}

func checkRole(fields *evently.FieldErrors, text string) evently.Role {
	role, err := evently.ParseRole(text)
	if err != nil {
		fields.Add("role", "must be user, organizer or admin")
	}
	return role
}

func userParam(c *gin.Context) (evently.UserID, error) {
	id, err := evently.ParseUserID(c.Param("id"))
	if err != nil {
		return 0, evently.ErrNotFound // ids are opaque: a text that is none names nobody
	}
	return id, nil
}

func (s *Server) getUser(c *gin.Context) error {
	id, err := userParam(c)
	if err != nil {
		return err
	}
	user, err := s.config.Accounts.User(c.Request.Context(), id)
	if err != nil {
		return fmt.Errorf("read user: %w", err)
	}
	writeJSON(c, http.StatusOK, newUserJSON(user))
	return nil
}

// changeRole takes effect on all nodes within a second: the user's sessions end, and with them the tokens that say the old role.
func (s *Server) changeRole(c *gin.Context) error {
	id, err := userParam(c)
	if err != nil {
		return err
	}
	var asked struct {
		Role string `json:"role"`
	}
	var role evently.Role
	if err := decodeChecked(c, &asked, func(fields *evently.FieldErrors) { role = checkRole(fields, asked.Role) }); err != nil {
		return err
	}
	user, revoked, err := s.config.Accounts.ChangeRole(c.Request.Context(), id, role, s.origin(c))
	if err != nil {
		return fmt.Errorf("change role: %w", err)
	}
	s.revoked.add(revoked...)
	writeJSON(c, http.StatusOK, newUserJSON(user))
	return nil
}
