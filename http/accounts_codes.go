package http

import (
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/evently/evently"
)

// accountKeys are what a token secret gives to accounts, besides access tokens.
type accountKeys struct {
	code    []byte // one-time codes are stored as MACs under it
	refresh []byte // refresh tokens are derived with it
}

// newAccountKeys derives them, in the order of the secrets: the first is in use, the others know what is in flight.
func newAccountKeys(secrets []Secret) ([]accountKeys, error) {
	keys := make([]accountKeys, len(secrets))
	for i, secret := range secrets {
		var codeErr, refreshErr error
		keys[i].code, codeErr = hkdf.Key(sha256.New, secret.Key, nil, "evently one-time code", sha256.Size)
		keys[i].refresh, refreshErr = hkdf.Key(sha256.New, secret.Key, nil, "evently refresh token", sha256.Size)
		if err := errors.Join(codeErr, refreshErr); err != nil {
			return nil, fmt.Errorf("derive from token secret %q: %w", secret.KID, err)
		}
	}
	return keys, nil
}

// codeMAC is what a code is stored as. Without the key nobody who reads the database can try the million codes there are.
func codeMAC(key []byte, user evently.UserID, purpose evently.CodePurpose, code string) (sum [32]byte) {
	mac := hmac.New(sha256.New, key)
	mac.Write(binary.BigEndian.AppendUint64([]byte{byte(purpose)}, uint64(user)))
	mac.Write([]byte(code))
	mac.Sum(sum[:0])
	return sum
}

// codeMACs are those that a code may be stored as.
func (s *Server) codeMACs(user evently.UserID, purpose evently.CodePurpose, code string) [][32]byte {
	macs := make([][32]byte, len(s.keys))
	for i := range s.keys {
		macs[i] = codeMAC(s.keys[i].code, user, purpose, code)
	}
	return macs
}

const (
	codeDigits = 6
	codesEnd   = 1_000_000
	// codeDrawEnd is the multiple of codesEnd up to which a random uint32 gives all codes alike.
	codeDrawEnd = 1<<32 - 1<<32%codesEnd
)

// newCode draws a one-time code for a user.
func (s *Server) newCode(user *evently.User, purpose evently.CodePurpose) (*evently.OneTimeCode, error) {
	var raw [4]byte
	for {
		if _, err := io.ReadFull(s.config.Rand, raw[:]); err != nil {
			return nil, fmt.Errorf("draw a one-time code: %w", err)
		}
		if n := binary.BigEndian.Uint32(raw[:]); n < codeDrawEnd {
			code := fmt.Sprintf("%0*d", codeDigits, n%codesEnd)
			return &evently.OneTimeCode{
				Mail: evently.CodeMail{
					To: user.Email, Name: user.Name, Purpose: purpose, Code: code, ExpiresAt: s.now().Add(evently.CodeTTL),
				},
				MAC: codeMAC(s.keys[0].code, user.ID, purpose, code),
			}, nil
		}
	}
}

// checkEmail is NormalizeEmail for one of several fields.
func checkEmail(fields *evently.FieldErrors, text string) string {
	email, err := NormalizeEmail(text)
	if err != nil {
		fields.Add("email", "must be an e-mail address")
	}
	return email
}

// checkCode trims a code that was typed in.
func checkCode(fields *evently.FieldErrors, text string) string {
	code := strings.TrimSpace(text)
	if len(code) != codeDigits || strings.Trim(code, "0123456789") != "" {
		fields.Add("code", fmt.Sprintf("must be %d digits", codeDigits))
	}
	return code
}

func (s *Server) verifyEmail(c *gin.Context) error {
	var asked struct {
		Email string `json:"email"`
		Code  string `json:"code"`
	}
	var email, code string
	if err := decodeChecked(c, &asked, func(fields *evently.FieldErrors) {
		email, code = checkEmail(fields, asked.Email), checkCode(fields, asked.Code)
	}); err != nil {
		return err
	}
	var user *evently.User
	err := s.evenlyFor(c, email, func(ctx context.Context, named *evently.User) (err error) {
		user, err = s.config.Accounts.VerifyEmail(ctx, named.ID, s.codeMACs(named.ID, evently.VerifyEmailCode, code), s.origin(c))
		return err
	})
	if err != nil {
		return fmt.Errorf("verify e-mail address: %w", err)
	}
	s.verified.add(user.ID)
	writeJSON(c, http.StatusOK, registeredJSON{newUserJSON(user)})
	return nil
}

// resendCode answers the same whatever it finds: no account, one that is verified, or a code a short time ago.
func (s *Server) resendCode(c *gin.Context) error {
	return s.mailCode(c, evently.VerifyEmailCode, func(user *evently.User) bool { return !user.EmailVerified })
}

// forgotPassword answers the same whether there is an account or not.
func (s *Server) forgotPassword(c *gin.Context) error {
	return s.mailCode(c, evently.ResetPasswordCode, func(*evently.User) bool { return true })
}

// mailCode has a code mailed to the address asked for, if it has an account that needs one.
func (s *Server) mailCode(c *gin.Context, purpose evently.CodePurpose, needs func(*evently.User) bool) error {
	var asked struct {
		Email string `json:"email"`
	}
	if err := decode(c, &asked); err != nil {
		return err
	}
	email, err := NormalizeEmail(asked.Email)
	if err != nil {
		return err
	}
	err = s.evenlyFor(c, email, func(ctx context.Context, user *evently.User) error {
		code, err := s.newCode(user, purpose)
		if err != nil || user.ID == 0 || !needs(user) {
			return err
		}
		_, err = s.config.Accounts.IssueCode(ctx, user.ID, code, s.origin(c))
		return err
	})
	if err != nil {
		return fmt.Errorf("mail a code: %w", err)
	}
	writeJSON(c, http.StatusAccepted, statusJSON{"accepted"})
	return nil
}

func (s *Server) resetPassword(c *gin.Context) error {
	var asked struct {
		Email       string `json:"email"`
		Code        string `json:"code"`
		NewPassword string `json:"new_password"`
	}
	var email, code string
	if err := decodeChecked(c, &asked, func(fields *evently.FieldErrors) {
		email, code = checkEmail(fields, asked.Email), checkCode(fields, asked.Code)
		checkPassword(fields, "new_password", asked.NewPassword)
	}); err != nil {
		return err
	}
	hash, err := s.passwords.hash(c.Request.Context(), asked.NewPassword)
	if err != nil {
		return err
	}
	err = s.evenlyFor(c, email, func(ctx context.Context, user *evently.User) error {
		macs := s.codeMACs(user.ID, evently.ResetPasswordCode, code)
		revoked, err := s.config.Accounts.ResetPassword(ctx, user.ID, macs, hash, s.origin(c))
		if err == nil {
			s.revoked.add(revoked...)
			s.verified.add(user.ID)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("reset password: %w", err)
	}
	writeNothing(c)
	return nil
}

var errWrongPassword = invalid("password", "is not your password")

// changePassword is for who is signed in and knows the password. It ends all other sessions.
func (s *Server) changePassword(c *gin.Context) error {
	var asked struct {
		Password    string `json:"password"`
		NewPassword string `json:"new_password"`
	}
	if err := decodeChecked(c, &asked, func(fields *evently.FieldErrors) {
		checkPassword(fields, "password", asked.Password)
		checkPassword(fields, "new_password", asked.NewPassword)
	}); err != nil {
		return err
	}
	ctx := c.Request.Context()
	who, err := s.self(c)
	if err != nil {
		return err
	}
	user, match, err := s.checkPassword(c, who.Email, asked.Password)
	if err != nil {
		return err
	}
	if !match {
		return errWrongPassword
	}
	hash, err := s.passwords.hash(ctx, asked.NewPassword)
	if err != nil {
		return err
	}
	revoked, err := s.config.Accounts.ChangePassword(ctx, user.ID, user.PasswordHash, hash, s.origin(c))
	if errors.Is(err, evently.ErrPasswordOutdated) {
		return errWrongPassword
	}
	if err != nil {
		return fmt.Errorf("change password: %w", err)
	}
	s.revoked.add(revoked...)
	writeNothing(c)
	return nil
}
