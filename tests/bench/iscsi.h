/* The little of iSCSI (RFC 7143) that the load client and the bare server share. */
#pragma once

#include <endian.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BHS = 48, SECTOR = 512 };
enum { SCSI_COMMAND = 0x01, LOGIN_REQUEST = 0x03, LOGOUT_REQUEST = 0x06, NOP_OUT = 0x00 };
enum { SCSI_RESPONSE = 0x21, LOGIN_RESPONSE = 0x23, DATA_IN = 0x25, LOGOUT_RESPONSE = 0x26, NOP_IN = 0x20 };
enum { FINAL = 0x80, READ_FLAG = 0x40, WRITE_FLAG = 0x20, STATUS_FLAG = 0x01, IMMEDIATE = 0x40 };
enum { TEST_UNIT_READY = 0x00, READ_10 = 0x28, WRITE_10 = 0x2a };
enum { SEGMENT = 262144 }; /* MaxRecvDataSegmentLength of the load client: what Linux offers */

#define NO_TAG 0xffffffffu

static inline void put32(uint8_t *at, uint32_t value) { value = htobe32(value); memcpy(at, &value, 4); }
static inline void put64(uint8_t *at, uint64_t value) { value = htobe64(value); memcpy(at, &value, 8); }
static inline uint32_t get32(const uint8_t *at) { uint32_t value; memcpy(&value, at, 4); return be32toh(value); }
static inline uint64_t get64(const uint8_t *at) { uint64_t value; memcpy(&value, at, 8); return be64toh(value); }

static inline void put_length(uint8_t *header, uint32_t length)
{
    header[5] = length >> 16;
    header[6] = length >> 8;
    header[7] = length;
}

static inline uint32_t get_length(const uint8_t *header)
{
    return (uint32_t)header[5] << 16 | header[6] << 8 | header[7];
}

static inline uint32_t padded(uint32_t length) { return (length + 3) & ~3u; }

__attribute__((noreturn, format(printf, 1, 2))) static inline void die(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    vfprintf(stderr, format, values);
    va_end(values);
    fputc('\n', stderr);
    exit(1);
}
