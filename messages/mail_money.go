package messages

import (
	"strconv"
	"strings"
)

// exponents are the currencies of ISO 4217 whose minor unit is not a hundredth: the number of digits after the point.
var exponents = map[string]int{
	"BIF": 0, "CLP": 0, "DJF": 0, "GNF": 0, "ISK": 0, "JPY": 0, "KMF": 0, "KRW": 0, "PYG": 0, "RWF": 0, "UGX": 0, "UYI": 0, "VND": 0,
	"VUV": 0, "XAF": 0, "XOF": 0, "XPF": 0,
	"BHD": 3, "IQD": 3, "JOD": 3, "KWD": 3, "LYD": 3, "OMR": 3, "TND": 3,
	"CLF": 4, "UYW": 4,
}

// formatMoney writes an amount of minor units, such as EUR 1,234.50, JPY 1,235 or KWD 1.234.
func formatMoney(minor int64, currency string) string {
	exponent, found := exponents[currency]
	if !found {
		exponent = 2
	}
	sign, digits := "", strconv.FormatInt(minor, 10)
	if minor < 0 {
		sign, digits = "-", digits[1:]
	}
	if missing := exponent + 1 - len(digits); missing > 0 {
		digits = strings.Repeat("0", missing) + digits
	}
	whole, fraction := digits[:len(digits)-exponent], digits[len(digits)-exponent:]
	var text strings.Builder
	text.WriteString(currency + " " + sign)
	for i, digit := range whole {
		if i > 0 && (len(whole)-i)%3 == 0 {
			text.WriteByte(',')
		}
		text.WriteRune(digit)
	}
	if exponent > 0 {
		text.WriteString("." + fraction)
	}
	return text.String()
}
